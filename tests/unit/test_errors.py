"""The tree of exceptions, and gRPC's status codes as exceptions."""

import inspect

import grpc
import pytest

from ketch import errors
from ketch.errors import Code, KetchError, NotFound, StatusError, Unknown, status_error

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
STATUSES = StatusError.__subclasses__()


def test_the_codes_are_those_of_grpc():
    assert {code.name: code.value for code in Code} == {code.name: code.value[0] for code in grpc.StatusCode}


def test_each_code_but_ok_has_one_exception_of_its_name():
    named = {kind.code: kind.__name__.lower() for kind in STATUSES}
    assert named == {code: code.name.replace("_", "").lower() for code in Code if code is not Code.OK}
    assert len(STATUSES) == 16


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK])
def test_a_code_becomes_its_exception_with_all_that_it_carries(code):
    error = status_error(code, "why", details=[b"detail"], metadata={"k": "v"})
    assert type(error).code is code
    assert (error.message, str(error), error.details, error.metadata) == ("why", "why", (b"detail",), {"k": "v"})


@pytest.mark.parametrize("code", [17, 99, -1, 2**31])
def test_a_code_that_grpc_does_not_know_is_unknown(code):
    assert type(status_error(code, "odd")) is Unknown


def test_a_subclass_of_a_users_own_has_its_parents_code():
    class NoSuchUser(NotFound):
        pass

    assert NoSuchUser("7").code is Code.NOT_FOUND
    assert type(status_error(Code.NOT_FOUND, "7")) is NotFound


def test_every_exception_is_a_ketch_error_and_stands_in_the_tree():
    for kind in ALL:
        assert issubclass(kind, KetchError)
        if kind not in STATUSES:
            assert f" {kind.__name__} " in errors.__doc__.replace("\n", " \n ")
