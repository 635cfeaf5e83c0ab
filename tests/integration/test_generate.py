"""`ketch generate` with the real protoc: what it writes imports, type-checks and stays fresh, wherever it is put."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ketch.cli import compiler

MONEY = """
syntax = "proto3";
package acme.common;
message Money { int64 units = 1; }
"""

PUBLIC = """
syntax = "proto3";
package acme.common;
import public "acme/common/money.proto";
"""

SHOP = """
syntax = "proto3";
package acme.shop.v1;
import "acme/common/public.proto";
import "google/protobuf/empty.proto";
import "google/protobuf/timestamp.proto";
import "root.proto";

message Order {
  message Line { optional string item = 1; }
  repeated Line lines = 1;
  acme.common.Money price = 2;
  google.protobuf.Timestamp at = 3;
  Root root = 4;
}

// Sells "things" \\ more.
service Shop {
  // Take an order.
  rpc Place(Order) returns (acme.common.Money);
  rpc Watch(google.protobuf.Empty) returns (stream Order.Line);
  rpc Upload(stream Order) returns (google.protobuf.Empty) { option deprecated = true; }
  rpc Chat(stream Root) returns (stream Order) { option idempotency_level = IDEMPOTENT; }
}

service Returns { rpc Place(Order) returns (Order); }
"""

ROOT = """
syntax = "proto3";
message Root {}
service Flat { rpc Get(Root) returns (Root); }
"""

KEYWORD = """
edition = "2023";
package acme.lambda;
import "acme/common/money.proto";
service Odd { rpc Import(acme.common.Money) returns (Nothing); }
message Nothing {}
"""

PROTOS = {
    "acme/common/money.proto": MONEY,
    "acme/common/public.proto": PUBLIC,
    "acme/shop/v1/shop.proto": SHOP,
    "acme/lambda/odd.proto": KEYWORD,
    "root.proto": ROOT,
}

IMPORT_ALL = """
import importlib
from {package}acme.shop.v1 import shop_ketch, shop_pb2
from {package}acme.common import money_pb2, public_pb2
from {package_or_nothing} import root_ketch
odd = importlib.import_module("{package}acme.lambda.odd_ketch")
assert shop_ketch.Shop.methods["place"].reply is money_pb2.Money is public_pb2.Money
assert root_ketch.Flat.methods["get"].path == "/Flat/Get"
assert odd.Odd.methods["import_"].request is money_pb2.Money
print(*shop_ketch.Shop.methods, shop_ketch.Returns.methods["place"].path)
"""


@pytest.fixture
def project(tmp_path):
    """Make a project with the protos in `proto/`."""
    for name, text in PROTOS.items():
        file = tmp_path / "proto" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


def ketch(project, *arguments, env=None):
    return subprocess.run(
        [sys.executable, "-m", "ketch.cli.generate", *arguments],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
        env=env,
    )


def generate(project, *arguments):
    done = ketch(project, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def python(project, code):
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def imports(project, package):
    """Import everything as parts of `package`; empty: from the root."""
    code = IMPORT_ALL.format(package=package + "." if package else "", package_or_nothing=package)
    return python(project, code if package else code.replace("from  import", "import"))


EXPECTED = "place watch upload chat /acme.shop.v1.Returns/Place"


def test_generated_files_import_from_inside_a_package(project):
    (project / "app").mkdir()
    (project / "app" / "__init__.py").touch()
    written = generate(project, "--out", "app/deep/gen", "proto")
    assert "app/deep/__init__.py" in written
    assert "app/deep/gen/acme/shop/v1/shop_ketch.py" in written
    assert "app/deep/gen/acme/shop/v1/__init__.py" in written
    assert imports(project, "app.deep.gen") == EXPECTED


def test_a_new_folder_becomes_a_package(project):
    assert "gen/__init__.py" in generate(project, "--out", "gen", "proto")
    assert imports(project, "gen") == EXPECTED


def test_generated_files_import_from_a_folder_on_the_path(project):
    written = generate(project, "--out", ".", "proto")
    assert not [file for file in written if file.endswith("__init__.py")]
    assert imports(project, "") == EXPECTED


def test_a_package_that_the_files_fall_into_is_continued(project):
    (project / "src" / "acme").mkdir(parents=True)
    (project / "src" / "acme" / "__init__.py").write_text("# mine\n")
    written = generate(project, "--out", "src", "proto")
    assert "src/acme/shop/__init__.py" in written
    assert "src/__init__.py" not in written
    assert (project / "src" / "acme" / "__init__.py").read_text() == "# mine\n"


def test_whether_it_is_a_package_can_be_said(project):
    assert "gen/__init__.py" not in generate(project, "--no-package", "--out", "gen", "proto")
    assert imports(project / "gen", "") == EXPECTED


def test_two_copies_in_two_packages_live_in_one_process(project):
    generate(project, "--out", "one", "proto")
    generate(project, "--out", "two", "proto")
    python(project, "from one.acme.shop.v1 import shop_ketch; from two.acme.shop.v1 import shop_ketch")


def test_a_file_alone_is_written_beside_itself(tmp_path):
    folder = tmp_path / "acme" / "common"
    folder.mkdir(parents=True)
    (folder / "money.proto").write_text(MONEY)
    assert generate(tmp_path, "acme/common/money.proto") == ["acme/common/money_pb2.py", "acme/common/money_pb2.pyi"]
    assert python(tmp_path, "from acme.common.money_pb2 import Money; print(Money(units=3).units)") == "3"


def test_what_is_right_already_is_not_written_again(project):
    assert generate(project, "--out", "gen", "proto")
    assert generate(project, "--out", "gen", "proto") == []


def test_check_passes_on_fresh_files_and_writes_nothing(project):
    before = ketch(project, "--check", "--out", "gen", "proto")
    assert before.returncode == 1
    assert not (project / "gen").exists()
    generate(project, "--out", "gen", "proto")
    assert generate(project, "--check", "--out", "gen", "proto") == []


def test_check_names_the_files_that_are_stale(project):
    generate(project, "--out", "gen", "proto")
    (project / "gen/acme/lambda/odd_ketch.py").unlink()
    (project / "proto/acme/common/money.proto").write_text(MONEY.replace("units = 1", "units = 2"))
    stale = ketch(project, "--check", "--out", "gen", "proto")
    assert stale.returncode == 1
    assert stale.stderr.splitlines()[:3] == [
        "gen/acme/common/money_pb2.py: differs",
        "gen/acme/lambda/odd_ketch.py: missing",
        "Generated files are stale; run the same command without --check.",
    ]


def test_no_service_is_no_error(project):
    written = generate(project, "--out", "gen", "proto/acme/common", "--proto-path", "proto")
    assert "gen/acme/common/money_pb2.py" in written
    assert not [file for file in written if file.endswith("_ketch.py")]


def test_an_import_that_is_not_generated_along_is_named(project):
    done = ketch(project, "--out", "gen", "--proto-path", "proto", "proto/acme/lambda/odd.proto")
    assert done.returncode == 0
    assert "acme/lambda/odd.proto imports acme/common/money.proto, which is not generated here" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["absent.proto"], "absent.proto: no such file or folder"),
        (["empty"], "empty: no .proto file in there"),
        (["broken.proto"], "broken.proto:2:1: "),
        (["proto/acme/shop"], "name the folder above the missing file: --proto-path DIR"),
        (["-I", "empty", "broken.proto"], "broken.proto lies in no proto path (empty)"),
        (["proto", "broken.proto"], "say where to: --out DIR"),
    ],
)
def test_what_is_wrong_is_said_without_a_traceback(project, arguments, said):
    (project / "empty").mkdir()
    (project / "broken.proto").write_text('syntax = "proto3";\nmassage Q {}\n')
    done = ketch(project, *arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_without_protoc_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(compiler, "_wheel_protoc", lambda: iter(()))
    monkeypatch.setattr(compiler.shutil, "which", lambda _: None)
    monkeypatch.setattr(compiler, "find_spec", lambda _: None)
    with pytest.raises(compiler.MissingExtra, match=r"pip install 'ketch\[generate\]'"):
        compiler.find_protoc()


def test_a_protoc_on_the_path_or_grpc_tools_will_do_in_place_of_the_wheel(monkeypatch, project):
    monkeypatch.setattr(compiler, "_wheel_protoc", lambda: iter(()))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert compiler.find_protoc() == [str(Path(sys.executable).parent / "protoc")]
    monkeypatch.setattr(compiler.shutil, "which", lambda _: None)
    assert compiler.find_protoc() == [sys.executable, "-m", "grpc_tools.protoc"]
    file = project / "proto" / "acme/common/money.proto"
    made = compiler.compile_protos({file: "acme/common/money.proto"}, [project / "proto"])
    assert list(made) == ["acme/common/money_pb2.py", "acme/common/money_pb2.pyi"]


def test_it_works_without_a_path(project):
    generated = ketch(project, "--out", "gen", "proto", env={k: v for k, v in os.environ.items() if k != "PATH"})
    assert generated.returncode == 0, generated.stderr


def test_plain_protoc_runs_the_plugin(project):
    scripts = Path(sys.executable).parent
    (project / "out").mkdir()
    subprocess.run(
        [
            scripts / "protoc",
            f"--plugin=protoc-gen-ketch={scripts / 'protoc-gen-ketch'}",
            *("-Iproto", "--python_out=out", "--pyi_out=out", "--ketch_out=out"),
            *PROTOS,
        ],
        cwd=project,
        check=True,
    )
    assert imports(project / "out", "") == EXPECTED


RIGHT = """
    from collections.abc import AsyncIterator
    from google.protobuf.empty_pb2 import Empty
    from gen.acme.common.money_pb2 import Money
    from gen.acme.shop.v1.shop_ketch import Shop, ShopStub
    from gen.acme.shop.v1.shop_pb2 import Order
    from gen.root_pb2 import Root

    class Orders(Shop):
        async def place(self, request: Order, /) -> Money:
            return Money(units=len(request.lines))
        async def watch(self, request: Empty, /) -> AsyncIterator[Order.Line]:
            yield Order.Line(item="kettle")
        async def upload(self, requests: AsyncIterator[Order], /) -> Empty:
            async for order in requests:
                print(order.price.units)
            return Empty()
        async def chat(self, requests: AsyncIterator[Root], /) -> AsyncIterator[Order]:
            async for root in requests:
                yield Order(root=root)

    async def call(shop: ShopStub, roots: AsyncIterator[Root]) -> int:
        async for line in shop.watch(Empty(), timeout=2.0):
            print(line.item.upper())
        async with shop.chat(roots) as orders:
            async for order in orders:
                print(order.price.units)
        reply = await shop.place(Order(), metadata={"token": "t"})
        return reply.units

    orders = Orders()
"""

WRONG = """
    from gen.acme.common.money_pb2 import Money
    from gen.acme.shop.v1.shop_ketch import Returns, ShopStub
    from gen.acme.shop.v1.shop_pb2 import Order

    class Lacks(Returns):
        pass

    lacks = Lacks()  # expect: abstract

    class TakesAnother(Returns):
        async def place(self, request: Money, /) -> Order:  # expect: override
            return Order()

    class GivesAnother(Returns):
        async def place(self, request: Order, /) -> Money:  # expect: override
            return Money()

    class IsNotAsync(Returns):
        def place(self, request: Order, /) -> Order:  # expect: override
            return Order()

    async def call(shop: ShopStub) -> str:
        await shop.place(Money())  # expect: arg-type
        await shop.watch(Order())  # expect: arg-type misc
        return await shop.place(Order())  # expect: return-value
"""


def test_a_type_checker_knows_the_contract(project):
    """The generated code and a right program pass `mypy --strict`; each wrong line of another program fails."""
    generate(project, "--out", "gen", "proto")
    (project / "right.py").write_text(textwrap.dedent(RIGHT))
    wrong = textwrap.dedent(WRONG)
    (project / "wrong.py").write_text(wrong)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context", "."],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    found = {}
    for line in done.stdout.splitlines():
        place, _, message = line.partition(": error: ")
        if message:
            found.setdefault(place, set()).add(message.rpartition("[")[2].rstrip("]"))
    expected = {
        f"wrong.py:{number}": set(line.partition("# expect: ")[2].split())
        for number, line in enumerate(wrong.splitlines(), 1)
        if "# expect: " in line
    }
    assert found == expected, done.stdout + done.stderr
