from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest

from trimtab_server.config import ServerConfig, load_config, sections, to_toml
from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.engine.config import Effort
from trimtab_server.solver import settings


def written(folder: Path, text: str) -> Path:
    path = folder / "trimtab.toml"
    path.write_text(text)
    return path


def complaints(flags: dict[str, Any], environment: dict[str, str], file: Path | None = None) -> str:
    with pytest.raises(InvalidArgumentError) as refused:
        load_config(flags, environment, file)
    return str(refused.value)


def test_defaults_hold_where_nothing_is_said() -> None:
    assert load_config({}, {}) == ServerConfig()
    assert load_config({}, {"PATH": "/bin", "TRIMTAB_UNRELATED": "1"}) == ServerConfig()


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    file = written(tmp_path, "queue_size = 1\nmax_top_k = 2\nmax_restarts = 3")
    environment = {"TRIMTAB_QUEUE_SIZE": "10", "TRIMTAB_MAX_TOP_K": "20"}
    config = load_config({"queue_size": "100"}, environment, file)
    assert config.solver.queue_size == 100
    assert config.limits.max_top_k == 20
    assert config.limits.max_restarts == 3
    assert config.rpc.listen == "127.0.0.1:50051"


def test_the_environment_may_name_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "queue_size = 5")
    assert load_config({}, {"TRIMTAB_CONFIG": str(file)}).solver.queue_size == 5


def test_every_kind_of_value_can_be_text_or_typed(tmp_path: Path) -> None:
    said = {"drain_seconds": "2", "reflection": "False", "tls_cert": "a", "tls_key": "b"}
    text = load_config({}, {f"TRIMTAB_{name.upper()}": value for name, value in said.items()})
    # A whole number will do for a number.
    typed = 'drain_seconds = 2\nreflection = false\ntls_cert = "a"\ntls_key = "b"'
    assert text == load_config({}, {}, written(tmp_path, typed))
    assert (text.rpc.drain_seconds, text.rpc.reflection) == (2.0, False)
    assert text.rpc.tls_cert == Path("a")


BAD = [
    ("queue_size", "0", "0 is below 1"),
    ("queue_size", "many", "'many' is not a whole number"),
    ("queue_size", "1.5", "'1.5' is not a whole number"),
    ("drain_seconds", "-1", "-1.0 is below 0"),
    ("drain_seconds", "nan", "'nan' is not a number"),
    ("reflection", "maybe", "'maybe' is not true or false"),
    ("effort", "heroic", "'heroic' is not one of fast, balanced"),
    ("create_deployments", "me", "'me' is not one of anyone, workers, operators"),
    ("log_level", "loud", "'loud' is not one of debug, info"),
    ("device", "tpu", "'tpu' is not auto, cpu, cuda"),
    ("listen", "nowhere", "'nowhere' is not host:port"),
    ("listen", "host:70000", "'host:70000' is not host:port"),
    ("listen", "unix:", "'unix:' is not host:port"),
    ("metrics_listen", "9464", "'9464' is not host:port"),
    ("max_message_bytes", "10", "10 is below 1024"),
    ("max_message_bytes", "5000000000", "5000000000 is above 2147483647"),
    ("solver_threads", "3000000", "3000000 is above 1024"),
    ("drain_seconds", "1e9", "1000000000.0 is above 86400"),
    ("max_slots", "0", "0 is below 1"),
]


@pytest.mark.parametrize(("name", "value", "complaint"), BAD)
def test_a_bad_value_is_named_with_its_rule_and_source(
    name: str, value: str, complaint: str
) -> None:
    said = complaints({name: value}, {})
    assert said.startswith(f"{name}: {complaint}")
    assert said.endswith("(on the command line)")
    assert "(in the environment)" in complaints({}, {f"TRIMTAB_{name.upper()}": value})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("queue_size = true", "queue_size: True is not a whole number"),
        ("queue_size = 1.5", "queue_size: 1.5 is not a whole number"),
        ("reflection = 1", "reflection: 1 is not true or false"),
        ("listen = 50051", "listen: 50051 is not text"),
        ("tls_cert = 1", "tls_cert: 1 is not text"),
        ("[rpc]\nlisten = 'a:1'", "rpc: no such setting"),
        ("queu_size = 1", "queu_size: no such setting"),
    ],
)
def test_what_a_file_says_wrongly_is_named_with_the_file(
    tmp_path: Path, text: str, complaint: str
) -> None:
    said = complaints({}, {}, written(tmp_path, text))
    assert said == f"{complaint} (in {tmp_path}/trimtab.toml)"


@pytest.mark.parametrize("text", ["queue_size", "\x00"])
def test_a_file_that_is_no_toml_is_an_error(tmp_path: Path, text: str) -> None:
    assert "config: cannot read" in complaints({}, {}, written(tmp_path, text))


def test_a_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    assert f"config: cannot read {tmp_path}/none" in complaints({}, {}, tmp_path / "none")


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    file = written(tmp_path, "max_top_k = 0")
    said = complaints({"queue_size": "0"}, {"TRIMTAB_TLS_CERT": "cert.pem"}, file)
    for name in ("max_top_k", "queue_size", "tls_key"):
        assert f"{name}: " in said


def test_settings_that_contradict_each_other_are_both_named() -> None:
    for report, lease in (("20", "15"), ("15", "15")):
        said = complaints({"report_seconds": report, "lease_seconds": lease}, {})
        assert said.startswith(
            f"report_seconds: {report} is not below lease_seconds, which is {lease}: "
        )
    # 0.5 messages a second, and a report each second.
    said = complaints({"messages_per_second": "0.5"}, {})
    assert said.startswith("messages_per_second: 0.5 is below the rate of a worker's reports, ")
    assert "one in 1 seconds (report_seconds)" in said
    config = load_config({"report_seconds": "2", "messages_per_second": "0.5"}, {})
    assert config.sessions.report_seconds == 2


@pytest.mark.parametrize("name", ["tls_cert", "tls_key", "tls_client_ca"])
def test_tls_files_need_each_other(name: str) -> None:
    assert "tls" in complaints({name: "file.pem"}, {})


def test_the_printed_configuration_reads_back_the_same(tmp_path: Path) -> None:
    config = load_config(
        {"listen": 'unix:/a "b"', "reflection": False, "tls_cert": "c", "tls_key": "d"}, {}
    )
    assert load_config({}, {}, written(tmp_path, to_toml(config))) == config
    assert load_config({}, {}, written(tmp_path, to_toml(ServerConfig()))) == ServerConfig()


def test_names_are_unique_and_described_over_all_sections() -> None:
    options = [option for section in sections() for option in section.options]
    names = [option.name for option in options]
    assert len(set(names)) == len(names)
    assert {section.name for section in sections()} == {f.name for f in fields(ServerConfig)}
    assert all(option.about.doc.endswith(".") for option in options)
    printed = tomllib.loads(to_toml(ServerConfig()))
    unset = {option.name for option in options if option.default is None}
    assert set(printed) == set(names) - unset


def test_every_number_has_a_lowest_and_a_highest_value() -> None:
    options = [option for section in sections() for option in section.options]
    for option in options:
        if option.kind in (int, float):
            assert "is above" in complaints({option.name: str(1 << 62)}, {})
            assert "is below" in complaints({option.name: "-1"}, {})


def test_the_efforts_are_the_solvers() -> None:
    assert get_args(Effort) == get_args(settings.Effort)
    assert ServerConfig().solver.effort == settings.DEFAULT_EFFORT
