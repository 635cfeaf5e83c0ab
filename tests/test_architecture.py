"""The house rules that no linter knows. Each exception is narrow and carries its reason here."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KETCH = ROOT / "src" / "ketch"
GENERATED = ("_pb2.py", "_ketch.py")

MAX_MODULE = 300  # lines
MAX_FUNCTION = 40  # lines, without its docstring
MAX_ABSTRACT = 4  # methods a plugin must write, beside `from_url`

LONG_MODULES = {
    "src/ketch/testing/registries/suite.py": "one suite, one case after the other",
    "src/ketch/testing/transports.py": "one suite, one case after the other",
}
LONG_FUNCTIONS: dict[str, str] = {
    "src/ketch/brokers/direct/reading.py:_places": "one pass over bytes: calls would cost more than all the rest",
}
MANY_ABSTRACT: dict[str, str] = {}
READS_ENVIRONMENT = {
    "src/ketch/settings.py": "this is the file that does",
}
DEFINES_ERRORS = {
    "src/ketch/errors.py": "this is the file that does",
}
FORBIDDEN_MODULES = {"utils", "util", "helpers", "helper", "base", "manager", "managers", "common", "misc", "impl"}
FORBIDDEN_SUFFIXES = ("Manager", "Helper", "Helpers", "Utils", "Util", "Impl", "Factory", "Base")
#: Packages that only a plugin, a tool or an extra may import.
DRIVERS = {"nats", "grpc", "pydantic", "pytest", "sqlalchemy", "asyncpg", "aiokafka", "redis", "h2", "faststream"}
DRIVERS |= {"hiredis", "pamqp", "zmqtt", "aiobotocore", "botocore"}
DRIVERS |= {"aiohttp", "yarl", "dns"}


def modules():
    roots = (KETCH, ROOT / "examples" / "shippy" / "src")
    files = [file for root in roots for file in sorted(root.rglob("*.py")) if not file.name.endswith(GENERATED)]
    return {file.relative_to(ROOT).as_posix(): file for file in files}


MODULES = modules()
TREES = {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in MODULES.items()}


def walk(kind):
    """Yield each module's name with its nodes of one kind."""
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, kind):
                yield name, node


def length(function):
    """Count the lines of a function, but for its docstring."""
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    told = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    return lines - (first.end_lineno - first.lineno + 1 if told else 0)


def last_name(node):
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def check(found, excused, rule):
    """Fail for what breaks a rule, and for excuses that are no longer needed."""
    broken = sorted(set(found) - set(excused))
    assert not broken, f"{rule}:\n  " + "\n  ".join(broken)
    stale = sorted(set(excused) - set(found))
    assert not stale, f"no longer needed as an exception to '{rule}':\n  " + "\n  ".join(stale)
    assert all(excused.values()), "an exception carries its reason"


def test_the_rules_are_applied_to_something():
    assert len(MODULES) > 20


def test_a_module_fits_in_one_head():
    long = [name for name, file in MODULES.items() if len(file.read_text(encoding="utf-8").splitlines()) > MAX_MODULE]
    check(long, LONG_MODULES, f"modules have at most {MAX_MODULE} lines")


def test_a_function_fits_on_a_screen():
    functions = walk((ast.FunctionDef, ast.AsyncFunctionDef))
    long = [f"{name}:{function.name}" for name, function in functions if length(function) > MAX_FUNCTION]
    check(long, LONG_FUNCTIONS, f"functions have at most {MAX_FUNCTION} lines")


def test_a_plugin_is_four_methods_at_most():
    many = []
    for name, class_ in walk(ast.ClassDef):
        abstract = [
            method.name
            for method in class_.body
            if isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef))
            and any(last_name(decorator) == "abstractmethod" for decorator in method.decorator_list)
        ]
        if len(set(abstract) - {"from_url"}) > MAX_ABSTRACT:
            many.append(f"{name}:{class_.name}")
    check(many, MANY_ABSTRACT, f"a contract has at most {MAX_ABSTRACT} abstract methods")


def test_only_settings_reads_the_environment_and_the_command_line():
    names = {("os", "environ"), ("os", "environb"), ("os", "getenv"), ("sys", "argv")}
    found = [name for name, node in walk(ast.Attribute) if (last_name(node.value), node.attr) in names]
    found += [
        name for name, node in walk(ast.ImportFrom) if any((node.module, alias.name) in names for alias in node.names)
    ]
    found = [name for name in found if name.startswith("src/ketch/")]
    check(found, READS_ENVIRONMENT, "only settings.py reads os.environ and sys.argv")


def test_errors_are_defined_in_one_place():
    ours = {node.name for name, node in walk(ast.ClassDef) if name == "src/ketch/errors.py"} - {"Code"}
    found = []
    for name, class_ in walk(ast.ClassDef):
        bases = [last_name(base) for base in class_.bases]
        if name.startswith("src/ketch/") and any(
            base in ours or base.endswith(("Error", "Exception", "ExceptionGroup")) for base in bases
        ):
            found.append(name)
    check(found, DEFINES_ERRORS, "exceptions are defined in errors.py")


@pytest.mark.parametrize("folder", ["brokers", "registries", "transports", "codecs", "middleware", "selectors"])
def test_plugins_never_import_each_other(folder):
    """A plugin is a module that an entry point could name: it defines a subclass of the contract."""
    contract = {"brokers": "Broker", "registries": "Registry", "transports": "Transport", "codecs": "Codec"}.get(folder)
    inside = {Path(name).stem: name for name in MODULES if Path(name).parent == Path("src/ketch", folder)}
    plugins = {
        stem
        for stem, name in inside.items()
        if contract is None
        or any(contract in map(last_name, node.bases) for node in TREES[name].body if isinstance(node, ast.ClassDef))
    }
    found = []
    for stem, name in inside.items():
        for node in ast.walk(TREES[name]):
            if isinstance(node, ast.ImportFrom) and (node.level == 1 or f"ketch.{folder}" in (node.module or "")):
                parts = {(node.module or "").rpartition(".")[2], *(alias.name for alias in node.names)}
                found += [f"{name} imports {part}" for part in parts & plugins - {stem} - {"__init__"}]
    check(found, {}, f"{folder} never import each other")


def dotted(name):
    return name.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(name, known):
    """Yield the modules among `known` that a module imports, wherever in it, for types as well."""
    package = dotted(name).split(".")[: None if name.endswith("__init__.py") else -1]
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            inside = {f"{source}.{alias.name}" for alias in node.names}
            yield from inside & known or {source} & known


def find_cycle(graph):
    """Return the modules of one cycle, in order; () where there is none."""
    done = set()

    def visit(module, path):
        if module in path:
            return (*path[path.index(module) :], module)
        if module not in done:
            for target in sorted(graph[module]):
                if found := visit(target, (*path, module)):
                    return found
            done.add(module)
        return ()

    return next(filter(None, (visit(module, ()) for module in sorted(graph))), ())


def test_no_import_cycle_not_even_for_types():
    known = {dotted(name) for name in MODULES if name.startswith("src/ketch/")}
    graph = {
        dotted(name): set(imports(name, known)) - {dotted(name)} for name in MODULES if name.startswith("src/ketch/")
    }
    assert sum(map(len, graph.values())) > len(graph)
    assert " -> ".join(find_cycle(graph)) == ""


def test_a_cycle_is_found():
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ("b", "c", "b")
    assert find_cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == ()


def test_nothing_is_called_what_says_nothing():
    found = [name for name in MODULES if Path(name).stem in FORBIDDEN_MODULES]
    found += [name for name in MODULES if set(Path(name).parent.parts) & FORBIDDEN_MODULES]
    found += [f"{name}:{node.name}" for name, node in walk(ast.ClassDef) if node.name.endswith(FORBIDDEN_SUFFIXES)]
    check(found, {}, "names are those of the field")


def test_every_module_says_what_it_is():
    silent = [name for name, tree in TREES.items() if tree.body and not ast.get_docstring(tree)]
    check(silent, {}, "every module has a docstring")


IMPORT = """
import os, sys, threading

before = set(sys.modules)
io = []

def notice(event, args):
    if event == "open" and isinstance(args[0], (str, os.PathLike)):
        writes = isinstance(args[1], str) and set(args[1]) & set("wax+")
        if writes or not os.fspath(args[0]).endswith((".py", ".pyc", ".so")):
            io.append(f"open {args[0]} {args[1]}")
    elif event.startswith(("socket.", "subprocess.", "os.fork", "os.exec", "os.posix_spawn", "os.mkdir", "os.putenv",
                           "os.remove", "os.rename", "shutil.", "tempfile.", "signal.")):
        io.append(f"{event} {args}")

sys.addaudithook(notice)
import ketch
sys.addaudithook(lambda event, args: None)
print("modules", *sorted(set(sys.modules) - before))
print("threads", threading.active_count())
for line in io:
    print("io", line)
"""


@pytest.fixture(scope="module")
def imported():
    done = subprocess.run([sys.executable, "-B", "-c", IMPORT], check=True, capture_output=True, text=True)
    return [line.split(" ", 1) for line in done.stdout.splitlines()]


def test_importing_ketch_does_no_io_and_starts_no_thread(imported):
    assert [text for kind, text in imported if kind == "io"] == []
    assert [text for kind, text in imported if kind == "threads"] == ["1"]


def test_importing_ketch_imports_no_driver_and_no_plugin(imported):
    (names,) = [text.split() for kind, text in imported if kind == "modules"]
    assert "ketch" in names
    assert {name.partition(".")[0] for name in names} & DRIVERS == set()
    plugins = ("ketch.brokers.", "ketch.registries.", "ketch.transports.", "ketch.cli.", "ketch.testing")
    assert [name for name in names if name.startswith(plugins)] == []
