"""Calling: how a client's calls find an instance, and what becomes of those that fail.

calls.py      the way of a unary call; opening.py: of a streaming one; optioned.py: of a stub with options of its own
plan.py       what the calls of one method have in common, by its policy; plans.py: one for each method
finder.py     from a service's name to its roster
roster.py     a service's candidates, and which are left alone because they fail; subset.py: which are used at all
choice.py     which candidates the calls of one method go to: labels, shares, preferences, then the selector
attempts.py   the call is made again, where that does no harm
race.py       the call is made at a second instance as well; hedging.py: when
breaker.py    calls fail at once; bulkhead.py: calls wait; budget.py: no more is repeated than the service can bear
"""
