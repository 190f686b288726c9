"""The command line: what it prints for programs, and one clear message with exit code 2 for what a user can mend."""

import json
import shlex
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from nas_core.deepmad.latency_table import LatencyTable
from nas_core.program.checker import main as checker_main
from nas_core.study.config import StudyConfig, read_config
from tests.command import mathnas, mathnas_process, refused

CONFIGS = sorted((Path(__file__).parents[2] / "flows/configs").glob("*.yaml"))


@pytest.fixture
def study_file(tmp_path):
    def write(**sections):
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({"name": "s", "space": {"name": "tiny"}, **sections}))
        return path

    return write


def test_init_writes_a_configuration_that_is_all_defaults(tmp_path):
    path = tmp_path / "study.yaml"
    assert mathnas("init", path).returncode == 0
    assert read_config(path) == StudyConfig()
    assert "free" in refused("init", path)


@pytest.mark.parametrize(
    "path",
    [path for path in CONFIGS if not path.stem.endswith("-example") and path.stem != "deepmad"],
    ids=lambda path: path.stem,
)
def test_example_configurations_are_valid(path):
    assert read_config(path).name


def test_spaces_are_listed():
    printed = mathnas("spaces").stdout
    assert "nasbench-macro: 8 positions" in printed
    assert "6,561 networks" in printed


def test_networks_are_counted(tmp_path):
    genotypes = tmp_path / "genotypes.txt"
    genotypes.write_text("2-2-2-1-2-2-0-2\n0-0-0-0-0-0-0-0\n")
    done = mathnas(
        "profile", "--space", "nasbench-macro", "--genotypes", genotypes, "--resources", "flops,params", "--json"
    )
    rows = json.loads(done.stdout)
    assert [row["genotype"] for row in rows] == ["2-2-2-1-2-2-0-2", "0-0-0-0-0-0-0-0"]
    assert all(row["flops"] > row["params"] > 0 for row in rows)


def test_a_dry_run_counts_and_changes_nothing(study_file, tmp_path):
    done = mathnas("run", study_file(), "--root", tmp_path / "root", "--dry-run", "--json")
    plan = json.loads(done.stdout)
    assert plan["networks_in_space"] == 27
    assert plan["missing"] == plan["evaluations"] > 7
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"spcae": 1}, "spcae: found 1, expected one of the keys: name, seed, plugins, space"),
        ({"seed": "x"}, "seed: found 'x'"),
        ({"space": {"name": "nowhere"}}, "'nowhere', expected one of: choices, mobile, model, nasbench-macro"),
        ({"space": {"name": "tiny", "params": {"width": 3}}}, "space.width: found 3"),
        ({"select": {"limits": ["flops<"]}}, "'flops<'"),
        ({"select": {"limits": ["speed<=3"]}}, "speed, expected a resource of profile.resources"),
        ({"data": {"name": "folder", "path": "/nowhere"}}, "/nowhere"),
        ({"scorer": {"kind": "tabular", "path": "none.parquet"}}, "none.parquet"),
        ({"design": {"base": "9-9-9"}}, "9-9-9"),
        ({"train": {"train_examples": 900_000}}, "train.train_examples: found 900000"),
        ({"name": "../up"}, "name: found '../up'"),
    ],
)  # fmt: skip
def test_a_wrong_study_is_one_clear_message(study_file, tmp_path, sections, expected):
    path = study_file(**sections)
    assert expected in refused("run", path, "--root", tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_a_process_says_it_in_one_line_and_ends_with_2(study_file, tmp_path):
    """The other refusals are asked for in this process; this one has everything that a process prints."""
    wrong = study_file(data={"name": "folder", "path": "/nowhere"})
    assert "/nowhere" in refused("run", wrong, "--root", tmp_path / "root", call=mathnas_process)


@pytest.mark.parametrize("variable", ["RAY_ADDRESS", "PREFECT_API_URL", "MLFLOW_TRACKING_URI"])
def test_an_address_that_does_not_answer_is_named(study_file, tmp_path, variable):
    address = "127.0.0.1:1" if variable == "RAY_ADDRESS" else "http://127.0.0.1:1/api"
    message = refused("run", study_file(), "--root", tmp_path / "root", **{variable: address})
    assert variable in message
    assert address in message


@pytest.mark.parametrize("address", ["nonsense", "https://127.0.0.1:99999/api", "http://127.0.0.1:1/api", ""])
def test_automations_need_a_prefect_server(address):
    assert "Prefect server" in refused("automations", call=mathnas_process, PREFECT_API_URL=address)


@pytest.mark.parametrize(
    ("variable", "address"), [("PREFECT_API_URL", "nonsense"), ("RAY_ADDRESS", "http://127.0.0.1:1")]
)
def test_serving_checks_what_its_runs_need(tmp_path, variable, address):
    assert f"{variable}: found {address}" in refused("serve", "--root", tmp_path, **{variable: address})
    assert "writable" in refused("serve", "--root", "/proc/mathnas")


@pytest.fixture
def refusing_server():
    """Answers every request with 401, as a Prefect server does without its password."""

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(401)

        do_POST = do_GET

        def log_message(self, *words):
            pass

    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()


def test_a_server_that_refuses_is_said(refusing_server, study_file, tmp_path):
    for command in (["automations"], ["run", study_file(), "--root", tmp_path / "root"]):
        message = refused(*command, call=mathnas_process, PREFECT_API_URL=refusing_server)
        assert "401 Unauthorized" in message
        assert "PREFECT_API_AUTH_STRING is its password" in message


def test_a_store_of_objects_needs_a_tracking_server(study_file):
    """What would otherwise be met when everything is trained."""
    message = refused("run", study_file(), "--root", "mock:///study", MLFLOW_TRACKING_URI="")
    assert "MLFLOW_TRACKING_URI: found nothing, expected a tracking server" in message


def test_a_design_is_written_where_a_folder_can_be(tmp_path):
    (tmp_path / "file").write_text("x")
    arguments = ["--family", "mobilenet", "--params", "20 k", "--resolution", "32", "--strides", "1,2", "--gap", "0.5"]
    assert "--out: found" in refused("design", *arguments, "--out", tmp_path / "file")


def test_stages_to_repeat_are_among_those_to_run(api, study_file, tmp_path):
    message = refused("run", study_file(), "--root", tmp_path / "root", "--from", "train", "--until", "score")
    assert "found train, expected a stage of those to run, up to score: profile, score" in message


def test_wrong_places_are_named(tmp_path):
    (tmp_path / "file").write_text("x")
    assert "no such folder" in refused("status", tmp_path / "nowhere")
    assert "no study.yaml" in refused("select", tmp_path)
    assert "a readable YAML file" in refused("run", tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- a\n")
    assert "a mapping of sections" in refused("run", tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("seed: 1\nname: [1\n")
    assert "in line 3, column 1, expected YAML" in refused("run", tmp_path / "broken.yaml")


def test_a_stored_problem_is_solved_without_a_study(tmp_path):
    path = tmp_path / "problem.json"
    problem = {"score": [[0, 1, 2], [0, 3]], "costs": {"flops": [[1, 2, 9], [1, 2]]}, "budgets": ["flops <= 4"]}
    path.write_text(json.dumps(problem))
    answer = json.loads(mathnas_process("select", path, "--json").stdout)
    assert answer["status"] == "optimal"
    assert [row["genotype"] for row in answer["selections"]] == ["1-1"]
    assert "least flops 2" in refused("select", path, "--limit", "flops<=1")


@pytest.mark.situations
def test_printed_commands_can_be_pasted(tmp_path, monkeypatch):
    folder = tmp_path / "my studies & co"
    folder.mkdir()
    printed = mathnas("init", folder / "study one.yaml").stdout
    command = printed.partition("then: ")[2]
    assert shlex.split(command) == ["mathnas", "run", str(folder / "study one.yaml"), "--dry-run"]
    problem = tmp_path / "p.json"
    problem.write_text('{"score": [[1, 2], [0, 1]]}')
    printed = mathnas("select", problem, "--certify", folder / "proof.json").stdout
    assert shlex.split(printed.partition("; ")[2])[-2:] == ["nas_core.program", str(folder / "proof.json")]


@pytest.mark.situations
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_files_of_any_system_are_read(study_file, tmp_path, mark, end):
    def saved(path, text):
        path.write_bytes(mark + text.encode().replace(b"\n", end))
        return path

    genotypes = saved(tmp_path / "genotypes.txt", "0-1-2\n2-2-2\n")
    done = mathnas("profile", "--space", "tiny", "--genotypes", genotypes, "--resources", "params", "--json")
    assert [row["genotype"] for row in json.loads(done.stdout)] == ["0-1-2", "2-2-2"]
    problem = saved(tmp_path / "p.json", '{"score": [[1, 2],\n [0, 1]]}\n')
    assert mathnas("select", problem, "--certify", tmp_path / "proof.json").returncode == 0
    proof = saved(tmp_path / "again.json", (tmp_path / "proof.json").read_text())
    assert checker_main([str(proof)]) == 0
    study = saved(tmp_path / "study.yaml", study_file().read_text())
    assert read_config(study).name == "s"
    latencies = json.dumps({"device": "größer", "fixed_us": 10, "blocks": []}, ensure_ascii=False, indent=1)
    assert LatencyTable.read(saved(tmp_path / "latencies.json", latencies)).device == "größer"


@pytest.mark.situations
def test_rows_stand_under_what_they_are(tmp_path):
    problem = tmp_path / "p.json"
    problem.write_text('{"score": [[1, 2], [0, 1]], "costs": {"params_M": [[1, 2], [3, 40000]]}}')
    lines = mathnas("select", problem, "--top", "3").stdout.splitlines()
    assert lines[1].split() == ["rank", "network", "value", "params_M"]
    assert lines[2].split() == ["1", "1-1", "3", "40002"]
    assert [line.index("-") for line in lines[2:]] == [lines[1].index("network") + 1] * 3


@pytest.mark.situations
def test_networks_of_a_yaml_space_are_counted_and_a_wrong_line_is_named(tmp_path):
    genotypes = tmp_path / "genotypes.txt"
    genotypes.write_text("0-0-0-0-0\n\n1-1-1-0-1\n")
    space = Path(__file__).parents[2] / "flows/configs/space-example.yaml"
    arguments = ("profile", "--space", space, "--genotypes", genotypes, "--resources", "params")
    assert [row["genotype"] for row in json.loads(mathnas(*arguments, "--json").stdout)] == ["0-0-0-0-0", "1-1-1-0-1"]
    genotypes.write_text("0-0-0-0-0\n\n1-2-9-0-1\n")
    assert f"{genotypes}: line 3: " in refused(*arguments)
