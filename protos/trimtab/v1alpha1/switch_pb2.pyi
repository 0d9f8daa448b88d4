from trimtab.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HeldState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HELD_STATE_UNSPECIFIED: _ClassVar[HeldState]
    HELD_STATE_ACCEPTED: _ClassVar[HeldState]
    HELD_STATE_PREPARED: _ClassVar[HeldState]
    HELD_STATE_ARMED: _ClassVar[HeldState]
    HELD_STATE_DISCARDING: _ClassVar[HeldState]
HELD_STATE_UNSPECIFIED: HeldState
HELD_STATE_ACCEPTED: HeldState
HELD_STATE_PREPARED: HeldState
HELD_STATE_ARMED: HeldState
HELD_STATE_DISCARDING: HeldState

class Version(_message.Message):
    __slots__ = ("epoch", "generation")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    generation: int
    def __init__(self, epoch: _Optional[int] = ..., generation: _Optional[int] = ...) -> None: ...

class Held(_message.Message):
    __slots__ = ("version", "state")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    version: Version
    state: HeldState
    def __init__(self, version: _Optional[_Union[Version, _Mapping]] = ..., state: _Optional[_Union[HeldState, str]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("version", "digest")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    version: Version
    digest: bytes
    def __init__(self, version: _Optional[_Union[Version, _Mapping]] = ..., digest: _Optional[bytes] = ...) -> None: ...

class Offer(_message.Message):
    __slots__ = ("version", "digest", "base", "base_digest", "layers", "old_rows", "new_rows", "receives", "receive_sources", "sends", "copies", "bytes")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    BASE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    OLD_ROWS_FIELD_NUMBER: _ClassVar[int]
    NEW_ROWS_FIELD_NUMBER: _ClassVar[int]
    RECEIVES_FIELD_NUMBER: _ClassVar[int]
    RECEIVE_SOURCES_FIELD_NUMBER: _ClassVar[int]
    SENDS_FIELD_NUMBER: _ClassVar[int]
    COPIES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    version: Version
    digest: bytes
    base: Version
    base_digest: bytes
    layers: _tensor_pb2.Tensor
    old_rows: _tensor_pb2.Tensor
    new_rows: _tensor_pb2.Tensor
    receives: _tensor_pb2.Tensor
    receive_sources: _tensor_pb2.Tensor
    sends: _tensor_pb2.Tensor
    copies: _tensor_pb2.Tensor
    bytes: int
    def __init__(self, version: _Optional[_Union[Version, _Mapping]] = ..., digest: _Optional[bytes] = ..., base: _Optional[_Union[Version, _Mapping]] = ..., base_digest: _Optional[bytes] = ..., layers: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., old_rows: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., new_rows: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., receives: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., receive_sources: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., sends: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., copies: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., bytes: _Optional[int] = ...) -> None: ...

class Commit(_message.Message):
    __slots__ = ("version", "digest")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    version: Version
    digest: bytes
    def __init__(self, version: _Optional[_Union[Version, _Mapping]] = ..., digest: _Optional[bytes] = ...) -> None: ...

class Abort(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: Version
    def __init__(self, version: _Optional[_Union[Version, _Mapping]] = ...) -> None: ...

class Accepted(_message.Message):
    __slots__ = ("version", "digest")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    version: Version
    digest: bytes
    def __init__(self, version: _Optional[_Union[Version, _Mapping]] = ..., digest: _Optional[bytes] = ...) -> None: ...

class Prepared(_message.Message):
    __slots__ = ("version", "digest")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    version: Version
    digest: bytes
    def __init__(self, version: _Optional[_Union[Version, _Mapping]] = ..., digest: _Optional[bytes] = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ("version", "digest", "reason")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    version: Version
    digest: bytes
    reason: str
    def __init__(self, version: _Optional[_Union[Version, _Mapping]] = ..., digest: _Optional[bytes] = ..., reason: _Optional[str] = ...) -> None: ...

class Discarded(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: Version
    def __init__(self, version: _Optional[_Union[Version, _Mapping]] = ...) -> None: ...

class Applied(_message.Message):
    __slots__ = ("version", "digest", "step")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    version: Version
    digest: bytes
    step: int
    def __init__(self, version: _Optional[_Union[Version, _Mapping]] = ..., digest: _Optional[bytes] = ..., step: _Optional[int] = ...) -> None: ...
