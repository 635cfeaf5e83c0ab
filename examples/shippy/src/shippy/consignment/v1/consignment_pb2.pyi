from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Consignment(_message.Message):
    __slots__ = ("id", "description", "weight")
    ID_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    id: str
    description: str
    weight: int
    def __init__(self, id: _Optional[str] = ..., description: _Optional[str] = ..., weight: _Optional[int] = ...) -> None: ...

class CreateRequest(_message.Message):
    __slots__ = ("description", "weight")
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    description: str
    weight: int
    def __init__(self, description: _Optional[str] = ..., weight: _Optional[int] = ...) -> None: ...

class CreateResponse(_message.Message):
    __slots__ = ("consignment",)
    CONSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    consignment: Consignment
    def __init__(self, consignment: _Optional[_Union[Consignment, _Mapping[str, object]]] = ...) -> None: ...
