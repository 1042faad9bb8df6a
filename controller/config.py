"""The controller's limits as a file: YAML, camelCase, every field optional."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from loopscope.controller.settings import SLOTS, STORAGE, NotificationSettings
from loopscope.specs.actions import CODE_REVISIONS, SHAREABLE
from loopscope.specs.devices import device_name
from loopscope.specs.errors import InvalidSpec, Problem
from loopscope.specs.files import read_at_most
from loopscope.specs.kinds import SPEC_BY_KIND
from loopscope.specs.parallelism import WORKERS_MAX
from loopscope.specs.sizes import byte_count
from loopscope.specs.status import ConditionType
from loopscope.specs.yaml.nodes import Document, read_documents

FILE_BYTES_MAX = 256 * 1024
PORT_MAX = 65_535


def _size(value: Any) -> Any:
    found = byte_count(str(value)) if isinstance(value, (str, int)) else None
    if found is None:
        raise ValueError("expected a size, for example 500MB or 8GiB")
    return found


def _stages(value: Mapping[str, int]) -> Mapping[str, int]:
    unknown = sorted(set(value) - set(CODE_REVISIONS))
    if unknown:
        raise ValueError(
            f"unknown stage {unknown[0]!r}; expected one of {', '.join(CODE_REVISIONS)}"
        )
    return value


def _shareable(value: Mapping[str, int]) -> Mapping[str, int]:
    alone = sorted(set(_stages(value)) - SHAREABLE)
    if alone:
        raise ValueError(
            f"a job of the stage {alone[0]} is done by one worker; "
            f"expected {', '.join(sorted(SHAREABLE))}"
        )
    return value


def _once(value: Any) -> Any:
    if isinstance(value, dict) and "cuda" in value and "cuda:0" in value:
        raise ValueError("cuda and cuda:0 are the same device; name it once")
    return value


def cluster_address(text: str) -> str:
    """Return the address of a Ray cluster. Raises ValueError for what Ray reads in another way."""
    host, _, port = text.rpartition(":")
    is_named = text in ("auto", "local")
    is_port = port.isdecimal() and port.isascii() and 0 < int(port) <= PORT_MAX
    if not is_named and not (host and is_port and "/" not in text):
        raise ValueError("expected HOST:PORT of the cluster's head, auto, or local")
    return text


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("expected a number")
    return value


Once = BeforeValidator(_once)
Number = Annotated[float, BeforeValidator(_number), Field(strict=False, allow_inf_nan=False)]
Device = Annotated[str, AfterValidator(device_name)]
Size = Annotated[int, BeforeValidator(_size)]
Workers = Annotated[int, Field(ge=1, le=WORKERS_MAX)]
ResourceName = Annotated[str, Field(pattern=r"^[A-Za-z_][-A-Za-z0-9_:.]{0,62}$")]
Namespace = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
ClassName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]


def _web_url(value: str) -> str:
    parts = urlsplit(value)
    is_web = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    if not is_web or "@" in parts.netloc:
        raise ValueError("expected https://host/path, or http, without a user in it")
    return value


def _kinds(value: list[str]) -> list[str]:
    unknown = sorted(set(value) - set(SPEC_BY_KIND))
    if unknown:
        raise ValueError(f"unknown kind {unknown[0]!r}; expected one of {', '.join(SPEC_BY_KIND)}")
    return value


class GivenSettings(TypedDict, total=False):
    """Fields of ``Settings`` that a file or an option sets."""

    job_starts_per_minute: int
    burst: int
    device: str
    slots_by_device: Mapping[str, int]
    executor: Literal["processes", "ray"]
    ray_address: str
    ray_resources: Mapping[str, float]
    slots_per_experiment: int
    memory_bytes: Mapping[str, int]
    stage_memory_bytes: Mapping[str, int]
    stage_parallelism: Mapping[str, int]
    priority_classes: Mapping[str, int]
    preempting_classes: tuple[str, ...]
    aging_seconds: float
    free_space_floor_bytes: int
    notifications: NotificationSettings
    resource_quotas: Mapping[str, Mapping[str, int]]


class Given(BaseModel):
    """A mapping of a config file: camelCase, and nothing that is not known."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, strict=True)


class Notifications(Given):
    """A webhook that is told when conditions change."""

    url: Annotated[str, AfterValidator(_web_url)]
    secret_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    conditions: Annotated[list[ConditionType], Field(min_length=1)] | None = None
    kinds: Annotated[list[str], Field(min_length=1), AfterValidator(_kinds)] | None = None

    def settings(self) -> NotificationSettings:
        """Return what ``Settings`` has of it."""
        usual = NotificationSettings(self.url, self.secret_env)
        return NotificationSettings(
            self.url,
            self.secret_env,
            tuple(self.conditions or usual.conditions),
            tuple(self.kinds or usual.kinds),
        )


class Hard(Given):
    """What a namespace may hold at most."""

    slots: Annotated[int, Field(ge=0)] | None = None
    requests_storage: Size | None = Field(default=None, alias="requests.storage")


class ResourceQuota(Given):
    """The quota of a namespace, with the field names of Kubernetes' ResourceQuota."""

    hard: Hard

    def settings(self) -> Mapping[str, int]:
        """Return what ``Settings`` has of it."""
        limits = {SLOTS: self.hard.slots, STORAGE: self.hard.requests_storage}
        return {name: value for name, value in limits.items() if value is not None}


def _with_value(value: Any) -> Any:
    return value if isinstance(value, dict) else {"value": value}


class PriorityClass(Given):
    """A class, with the field names of Kubernetes' PriorityClass; a number alone is its value."""

    value: Annotated[int, Field(ge=-1000, le=1000)]
    preemption_policy: Literal["LowerPriority", "Never"] = "Never"


class Config(Given):
    """The content of a config file. A field that is left out has the default of ``Settings``."""

    job_starts_per_minute: Annotated[int, Field(ge=1, le=10_000)] | None = None
    burst: Annotated[int, Field(ge=1, le=10_000)] | None = None
    slots: Annotated[dict[Device, Annotated[int, Field(ge=1, le=64)]], Once] | None = None
    executor: Literal["processes", "ray"] | None = None
    ray_address: Annotated[str, AfterValidator(cluster_address)] | None = None
    ray_resources: dict[ResourceName, Annotated[Number, Field(gt=0)]] | None = None
    slots_per_experiment: Annotated[int, Field(ge=1)] | None = None
    memory: Annotated[dict[Device, Size], Once] | None = None
    stage_memory: Annotated[dict[str, Size], AfterValidator(_stages)] | None = None
    stage_parallelism: Annotated[dict[str, Workers], AfterValidator(_shareable)] | None = None
    priority_classes: (
        dict[ClassName, Annotated[PriorityClass, BeforeValidator(_with_value)]] | None
    ) = None
    aging_seconds: Annotated[Number, Field(ge=1.0)] | None = None
    free_space_floor: Size | None = None
    notifications: Notifications | None = None
    resource_quotas: dict[Namespace, ResourceQuota] | None = None

    def settings(self) -> GivenSettings:
        """Return the fields that the file sets, under the names of ``Settings``."""
        given = {name: value for name, value in dict(self).items() if value is not None}
        if self.notifications is not None:
            given["notifications"] = self.notifications.settings()
        if self.resource_quotas is not None:
            quotas = self.resource_quotas.items()
            given["resource_quotas"] = {name: quota.settings() for name, quota in quotas}
        if self.priority_classes is not None:
            classes = self.priority_classes.items()
            given["priority_classes"] = {name: one.value for name, one in classes}
            given["preempting_classes"] = tuple(
                name for name, one in classes if one.preemption_policy == "LowerPriority"
            )
        named = {_SETTING_BY_FIELD.get(name, name): value for name, value in given.items()}
        return cast(GivenSettings, named)


_SETTING_BY_FIELD = {
    "slots": "slots_by_device",
    "memory": "memory_bytes",
    "stage_memory": "stage_memory_bytes",
    "free_space_floor": "free_space_floor_bytes",
}


def config_beside(state_folder: Path) -> Path:
    """Return where the config of a state folder lies: beside it, ``.loopscope.conf``.

    It is not a ``*.yaml``, because every such file in a folder of specs is read as a spec.
    """
    folder = state_folder.resolve()
    return folder.with_name(f"{folder.name}.conf")


def settings_beside(state_folder: Path) -> GivenSettings:
    """Return the settings in the file beside a state folder; none without a file."""
    path = config_beside(state_folder)
    return load_config(path).settings() if path.is_file() else {}


def load_config(path: Path) -> Config:
    """Read a config file. Raises InvalidSpec with every problem, with line and field."""
    try:
        text = read_at_most(path, FILE_BYTES_MAX).decode("utf-8")
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 at byte {error.start}; save it as UTF-8"
        raise InvalidSpec([Problem(str(path), 0, 0, "", problem)]) from None
    except (OSError, ValueError) as error:
        message = getattr(error, "strerror", None) or str(error)
        raise InvalidSpec([Problem(str(path), 0, 0, "", message)]) from None
    documents = list(read_documents(text, str(path)))
    if not documents:
        return Config()
    if len(documents) > 1 or not isinstance(documents[0].value, dict):
        raise InvalidSpec([documents[-1].problem((), "expected one mapping of limits")])
    return _validated(documents[0])


def _validated(document: Document) -> Config:
    try:
        return Config.model_validate(document.value)
    except ValidationError as error:
        raise InvalidSpec(list(_problems(error, document))) from None


_WITHIN: Mapping[str, tuple[type[Given], ...]] = {
    "notifications": (Notifications,),
    "resourceQuotas": (ResourceQuota, Hard),
    "priorityClasses": (PriorityClass,),
}
"""What is written within a field."""


def _problems(error: ValidationError, document: Document) -> Iterator[Problem]:
    for item in error.errors(include_url=False):
        place = tuple(step for step in item["loc"] if step != "[key]")
        match item["type"]:
            case "extra_forbidden":
                models = (Config,) if len(place) == 1 else _WITHIN[str(place[0])]
                fields = [one for model in models for one in model.model_fields.items()]
                names = [field.alias or name for name, field in fields]
                close = difflib.get_close_matches(str(place[-1]), names, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
                message = f"unknown field; {hint}"
            case "value_error":
                message = f"{item['ctx']['error']}; found {item['input']!r}"
            case _:
                message = f"{item['msg'][0].lower()}{item['msg'][1:]}; found {item['input']!r}"
        yield document.problem(place, message)
