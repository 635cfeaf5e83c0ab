"""protoc-gen-ketch: whatever a contract is called and says, valid Python comes out that means the same."""

import ast
import inspect
import subprocess
import sys
import types

import pytest
from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import FileDescriptorProto, MethodOptions
from hypothesis import example, given
from hypothesis import strategies as st

from ketch.protoc import respond
from ketch.rpc import Cardinality, Servicer, Stub


def proto(name="shop/v1/shop.proto", package="shop.v1", messages=("Q", "P"), services=None):
    """Describe a file; `services` maps each service's name to its rpcs' names, all from Q to P."""
    file = FileDescriptorProto(name=name, package=package, syntax="proto3")
    for message in messages:
        file.message_type.add(name=message)
    prefix = f".{package}" if package else ""
    for service, rpcs in (services or {}).items():
        described = file.service.add(name=service)
        for rpc in rpcs:
            described.method.add(name=rpc, input_type=f"{prefix}.Q", output_type=f"{prefix}.P")
    return file


def comment(file, path, text):
    file.source_code_info.location.add(path=path, leading_comments=text)


def answer(*files, parameter=""):
    return respond(CodeGeneratorRequest(file_to_generate=[files[-1].name], proto_file=files, parameter=parameter))


def text(*files):
    """Generate for the last of the files; the others are what it imports."""
    (made,) = answer(*files).file
    return made.content


@pytest.fixture
def load(monkeypatch):
    """Run generated code, its imports of messages answered by empty classes."""

    def run(*files):
        for file in files:
            name = file.name.removesuffix(".proto").replace("-", "_").replace("/", ".") + "_pb2"
            package, _, base = name.rpartition(".")
            messages = types.ModuleType(name)
            for message in file.message_type:
                vars(messages)[message.name] = type(message.name, (), {})
            monkeypatch.setitem(sys.modules, name, messages)
            for end in range(package.count(".") + 1 if package else 0):
                parent = ".".join(package.split(".")[: end + 1])
                monkeypatch.setitem(sys.modules, parent, sys.modules.get(parent) or types.ModuleType(parent))
            if package:
                vars(sys.modules[package])[base] = messages
        module = types.ModuleType("generated")
        exec(text(*files), vars(module))
        return module

    return run


def test_a_file_without_services_makes_no_file():
    assert not answer(proto()).file


def test_only_the_files_asked_for_are_generated():
    made = answer(proto("a.proto", services={"A": ["Get"]}), proto("b.proto", services={"B": ["Get"]})).file
    assert [file.name for file in made] == ["b_ketch.py"]


@pytest.mark.parametrize(
    ("file", "module"),
    [("shop.proto", "shop_ketch.py"), ("a-b/c-d.proto", "a_b/c_d_ketch.py"), ("a/shop.v1.proto", "a/shop/v1_ketch.py")],
)
def test_the_file_lies_where_protoc_puts_the_messages(file, module):
    (made,) = answer(proto(file, services={"Shop": ["Get"]})).file
    assert made.name == module


def test_a_servicer_and_a_stub_carry_the_contract(load):
    module = load(proto(services={"Shop": ["Place", "GetAll"]}))
    assert issubclass(module.Shop, Servicer)
    assert issubclass(module.ShopStub, Stub)
    assert module.Shop.contract == module.ShopStub.contract == "shop.v1.Shop"
    assert {name: method.path for name, method in module.Shop.methods.items()} == {
        "place": "/shop.v1.Shop/Place",
        "get_all": "/shop.v1.Shop/GetAll",
    }
    assert module.Shop.methods["place"].request is sys.modules["shop.v1.shop_pb2"].Q
    assert module.Shop.methods["place"].reply is sys.modules["shop.v1.shop_pb2"].P


def test_a_servicer_that_lacks_an_rpc_cannot_be_made(load):
    module = load(proto(services={"Shop": ["Place", "Cancel"]}))
    half = type("Half", (module.Shop,), {"place": lambda *_: None})
    with pytest.raises(TypeError, match="cancel"):
        half()


def test_a_contract_without_a_package_has_a_bare_name(load):
    assert load(proto("shop.proto", package="", services={"Shop": ["Get"]})).Shop.methods["get"].path == "/Shop/Get"


def test_who_streams_is_told(load):
    file = proto(services={"Shop": ["One", "Down", "Up", "Both"]})
    _, down, up, both = file.service[0].method
    down.server_streaming = both.server_streaming = up.client_streaming = both.client_streaming = True
    methods = load(file).Shop.methods
    assert [method.cardinality for method in methods.values()] == [
        Cardinality.UNARY,
        Cardinality.SERVER_STREAM,
        Cardinality.CLIENT_STREAM,
        Cardinality.BIDIRECTIONAL,
    ]


@pytest.mark.parametrize(
    ("level", "idempotent"),
    [
        (MethodOptions.IDEMPOTENCY_UNKNOWN, False),
        (MethodOptions.NO_SIDE_EFFECTS, True),
        (MethodOptions.IDEMPOTENT, True),
    ],
)
def test_the_idempotency_level_is_told(load, level, idempotent):
    file = proto(services={"Shop": ["Get"]})
    file.service[0].method[0].options.idempotency_level = level
    assert load(file).Shop.methods["get"].idempotent is idempotent


@pytest.mark.parametrize(
    ("rpc", "python"),
    [
        ("GetAll", "get_all"),
        ("getURL", "get_url"),
        ("HTTPGet", "http_get"),
        ("Import", "import_"),
        ("None", "none"),
        ("Contract", "contract_"),
        ("Methods", "methods_"),
        ("Float", "float_"),
        ("Abstractmethod", "abstractmethod_"),
        ("shop_pb2", "shop_pb2_"),
        ("_Unary", "rpc_unary"),
        ("__init__", "rpc__init__"),
    ],
)
def test_an_rpc_is_named_as_python_allows(load, rpc, python):
    module = load(proto(services={"Shop": [rpc, "Other"]}))
    assert list(module.Shop.methods) == [python, "other"]
    assert module.Shop.methods[python].name == rpc
    assert callable(getattr(module.ShopStub, python))


def test_rpcs_that_python_would_call_alike_stay_apart(load):
    module = load(proto(services={"Shop": ["GetAll", "get_all", "Get_All"]}))
    assert {name: method.name for name, method in module.Shop.methods.items()} == {
        "get_all": "GetAll",
        "get_all_": "get_all",
        "get_all__": "Get_All",
    }


def test_services_may_share_the_names_of_rpcs(load):
    module = load(proto(services={"User": ["ServiceGet", "Get"], "UserService": ["Get"]}))
    assert module.User.methods["service_get"].path == "/shop.v1.User/ServiceGet"
    assert module.User.methods["get"].path == "/shop.v1.User/Get"
    assert module.UserService.methods["get"].path == "/shop.v1.UserService/Get"


@pytest.mark.parametrize("name", ["Servicer", "Stub", "Method", "Metadata", "Reply", "Any", "Mapping", "None", "class"])
def test_a_service_called_like_something_else_gets_an_underscore(load, name):
    module = load(proto(services={name: ["Get"]}))
    assert getattr(module, f"{name}_").contract == f"shop.v1.{name}"


def test_a_service_called_like_anothers_stub_keeps_its_name(load):
    module = load(proto(services={"Shop": ["Get"], "ShopStub": ["Get"]}))
    assert issubclass(module.ShopStub, Servicer)
    assert issubclass(module.ShopStub_, Stub)
    assert module.ShopStub_.contract == "shop.v1.Shop"


def test_messages_come_from_the_files_that_declare_them(load):
    other = proto("shop/common/types.proto", package="shop.common", messages=["Money"])
    file = proto(services={"Shop": ["Pay"]})
    file.service[0].method[0].input_type = ".shop.common.Money"
    method = load(other, file).Shop.methods["pay"]
    assert method.request is sys.modules["shop.common.types_pb2"].Money
    assert method.reply is sys.modules["shop.v1.shop_pb2"].P


def test_two_files_of_one_name_stay_apart(load):
    other = proto("shop/v2/shop.proto", package="shop.v2", messages=["Q"])
    file = proto(services={"Shop": ["Move"]})
    file.service[0].method[0].output_type = ".shop.v2.Q"
    method = load(other, file).Shop.methods["move"]
    assert method.request is sys.modules["shop.v1.shop_pb2"].Q
    assert method.reply is sys.modules["shop.v2.shop_pb2"].Q


def test_well_known_types_come_from_protobuf_itself():
    empty = proto("google/protobuf/empty.proto", package="google.protobuf", messages=["Empty"])
    file = proto(services={"Shop": ["Ping"]})
    file.service[0].method[0].input_type = ".google.protobuf.Empty"
    code = text(empty, file)
    assert "from google.protobuf import empty_pb2\n" in code
    assert "request: empty_pb2.Empty, /" in code


def test_a_nested_message_may_be_a_request():
    file = proto(services={"Shop": ["Get"]})
    file.message_type[0].nested_type.add(name="Inner")
    file.service[0].method[0].input_type = ".shop.v1.Q.Inner"
    assert "request: shop_pb2.Q.Inner, /" in text(file)


def test_a_message_called_like_a_keyword_is_reached_nevertheless(load):
    file = proto(messages=["None", "P"], services={"Shop": ["Get"]})
    file.service[0].method[0].input_type = ".shop.v1.None"
    assert load(file).Shop.methods["get"].request.__name__ == "None"


def test_a_folder_called_like_a_keyword_is_reached_nevertheless(load):
    module = load(proto("shop/lambda/shop.proto", package="shop.lambda", services={"Shop": ["Get"]}))
    assert module.Shop.methods["get"].request is sys.modules["shop.lambda.shop_pb2"].Q


def test_comments_become_docstrings(load):
    file = proto(services={"Shop": ["Place"]})
    comment(file, [6, 0], " Sells things.\n")
    comment(file, [6, 0, 2, 0], " Place an order.\n\n NOT_FOUND without the item:\n   indented\n")
    module = load(file)
    assert module.Shop.__doc__ == "Sells things."
    for class_ in (module.Shop, module.ShopStub):
        assert inspect.getdoc(class_.place) == "Place an order.\n\nNOT_FOUND without the item:\n  indented"


def test_what_is_deprecated_says_so(load):
    file = proto(services={"Shop": ["Place"]})
    comment(file, [6, 0, 2, 0], " Place an order.\n")
    file.service[0].method[0].options.deprecated = True
    module = load(file)
    assert module.ShopStub.place.__doc__.split() == ["Place", "an", "order.", "Deprecated."]


@example('ends in "quotes"')
@example('"""starts, has """""" and ends so"""')
@example('a backslash before the last quote \\"')
@example("ends in a backslash \\")
@example("a zero \x00 within")
@given(st.text(alphabet=st.one_of(st.sampled_from("\"\\'\n\r #{}nNx"), st.characters(codec="utf-8"))))
def test_no_comment_breaks_the_code(said):
    file = proto(services={"Shop": ["Place"]})
    comment(file, [6, 0], said)
    comment(file, [6, 0, 2, 0], said)
    tree = ast.parse(text(file))
    servicer = next(node for node in tree.body if isinstance(node, ast.ClassDef))
    method = next(node for node in servicer.body if isinstance(node, ast.AsyncFunctionDef))
    assert ast.get_docstring(servicer).split() == (said.split() or ["shop.v1.Shop"])
    assert ast.get_docstring(method).split() == (said.split() or ["Serve", "Place."])


def test_the_same_contract_makes_the_same_text():
    files = [proto(f"{name}.proto", package=name, messages=["Q", "P"]) for name in "dcba"]
    file = proto(services={"Shop": ["A", "B", "C", "D"]})
    for method, name in zip(file.service[0].method, "abcd", strict=True):
        method.input_type = f".{name}.Q"
    assert text(*files, file) == text(*reversed(files), file)


def test_an_option_is_refused_not_ignored():
    assert "no options" in answer(proto(services={"Shop": ["Get"]}), parameter="paths=source_relative").error


def test_optional_fields_and_editions_are_supported():
    features = answer(proto()).supported_features
    assert features & CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    assert features & CodeGeneratorResponse.FEATURE_SUPPORTS_EDITIONS


def plugin(request):
    return subprocess.run([sys.executable, "-m", "ketch.protoc"], input=request, capture_output=True, check=False)


def test_the_executable_answers_protoc():
    file = proto(services={"Shop": ["Get"]})
    done = plugin(CodeGeneratorRequest(file_to_generate=[file.name], proto_file=[file]).SerializeToString())
    assert done.returncode == 0, done.stderr.decode()
    assert CodeGeneratorResponse.FromString(done.stdout).file[0].name == "shop/v1/shop_ketch.py"


def test_the_executable_refuses_what_is_no_request():
    done = plugin(b"\xffgarbage")
    assert done.returncode == 1
    assert done.stderr.startswith(b"protoc-gen-ketch: standard input holds no CodeGeneratorRequest")
    assert done.stdout == b""
