"""A user's own package, not installed, brings one of each kind; a study names them and runs on a second node."""

import contextlib
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import httpx
import pytest
import yaml

from flows.prefect_server import _free_port
from nas_core.base.errors import ConfigError, PluginError
from nas_core.base.plugins import find, import_plugin, imported, installed
from nas_core.base.registry import Registry
from nas_core.costs import ProfileConfig, profile_blocks
from nas_core.families import FAMILIES
from nas_core.scoring.scorer import SCORERS
from nas_core.space.genotypes import Genotype
from nas_core.study.config import parse_config, read_config
from nas_core.study.study import Study
from tests.command import mathnas, mathnas_process, refused
from tests.plugins.example import PACKAGE, STUDY

RATES = """
from nas_core import scorer

@scorer("{name}", version=1)
def rate(genotype):
    "Rates every network alike."
    return 1.0
"""


@pytest.fixture(autouse=True)
def _registries_as_they_were():
    """What a test's plug-ins register is forgotten when it ends."""
    known, entries = dict(imported), {registry: dict(registry._entries) for registry in Registry.all_of_them}
    yield
    imported.clear()
    imported.update(known)
    for registry, mine in entries.items():
        registry._entries = mine


def written(folder: Path, files: dict[str, str], package: str = "teamnas") -> Path:
    place = folder / package
    place.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (place / name).write_text(textwrap.dedent(text))
    return place


@pytest.fixture
def place(tmp_path):
    """A working directory with the package, a study, and folders named like ours that must not be imported."""
    written(tmp_path, PACKAGE)
    for ours in ("flows", "tasks"):
        written(tmp_path, {"__init__.py": f"raise SystemExit('the wrong {ours}')\n"}, ours)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    return tmp_path


def in_directory(place: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    """The installed command, started in the directory."""
    command = [str(Path(sys.executable).with_name("mathnas")), *arguments]
    hidden = ("RAY_ADDRESS", "PREFECT_API_URL", "MLFLOW_TRACKING_URI")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    return subprocess.run(
        command, cwd=place, capture_output=True, text=True, timeout=500, env={**environment, **variables}, check=False
    )


@contextlib.contextmanager
def head_and_worker_node():
    """The address of a Ray cluster in a process of its own, whose head does no work: all of it is the second node's."""
    code = (
        "import sys\nfrom ray.cluster_utils import Cluster\n"
        "cluster = Cluster(initialize_head=True, head_node_args={'num_cpus': 0})\n"
        "cluster.add_node(num_cpus=1)\nprint('ready', cluster.address, flush=True)\n"
        "sys.stdin.read()\ncluster.shutdown()\n"
    )
    environment = {**os.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, env=environment,
    )  # fmt: skip
    try:
        yield next(line.split()[1] for line in process.stdout if line.startswith("ready"))
    finally:
        process.communicate(timeout=60)


def test_what_it_registers_keeps_the_contracts(place):
    done = in_directory(place, "check", "./teamnas", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    checked = {(thing["kind"], thing["name"]) for thing in json.loads(done.stdout)["checked"]}
    assert checked == {
        ("family", "vector-cell"), ("block kind", "ghost"), ("workload", "diabetes"), ("scorer", "weights"),
        ("profiler", "price_eur"), ("searcher", "alphabetical"),
    }  # fmt: skip


def test_a_class_that_breaks_a_promise_is_told_which(tmp_path):
    (tmp_path / "bad.py").write_text(
        textwrap.dedent(
            '''
            from torch import nn
            from nas_core import block

            @block("lopsided")
            class Lopsided(nn.Module):
                """Forgets its stride."""

                def __init__(self, in_channels, out_channels, stride):
                    super().__init__()
                    self.conv = nn.Conv2d(in_channels, out_channels, 1)

                def forward(self, x):
                    return self.conv(x)
            '''
        )
    )
    done = mathnas_process("check", tmp_path / "bad.py")
    assert done.returncode == 2
    assert "a side of H becomes ceil(H / stride)" in done.stdout


def test_one_study_uses_all_of_it_on_a_node_that_has_nothing(place):
    """The workers' node knows the plug-in by what the driver stored; nothing is imported from the directory."""
    with head_and_worker_node() as address:
        here = {"RAY_ADDRESS": address, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        done = in_directory(place, "run", "study.yaml", "--root", "study", "--json", **here)
    assert done.returncode == 0, done.stderr
    study = Study.open(str(place / "study"))
    rows = study.evaluations()
    assert {row.metric_name for row in rows} == {"mae"}
    assert not any(row.higher_is_better for row in rows)
    assert all(row.status == "ok" for row in rows), [row.message for row in rows]
    assert {row.resource for row in study.costs("price_eur")} == {"price_eur"}
    winner = study.output("training.json")["networks"][0]
    best = min(row.metric for row in rows if study.costs_of(study.space.parse(row.genotype))["price_eur"] <= 7)
    chosen = next(row for row in rows if row.genotype == winner["genotype"])
    assert chosen.metric == best, "less is better"
    page = (place / "study/report.html").read_text()
    assert "mean absolute error" in page
    assert "ccuracy" not in page

    changed = place / "teamnas/families.py"
    before = study.space.space_id, study.scorer_id
    changed.write_text(changed.read_text() + "\n# another line\n")
    again = Study(read_config(place / "study.yaml"), study.store)
    assert again.scorer_id != before[1], "changed source is measured again, not mixed"

    shutil.rmtree(place / "teamnas")
    message = refused("run", place / "study.yaml", "--root", place / "study", call=mathnas_process)
    assert "teamnas: found nothing there" in message


def test_choices_that_are_no_networks_are_selected_exactly(place, cluster, api):
    """Compiler flags, rated by a function: one that fails is a row, and less is better."""
    (place / "flags.py").write_text(
        textwrap.dedent(
            '''
            from typing import Annotated
            from nas_core import resource, scorer

            COST = {"O0": 9.0, "O2": 4.0, "O3": 3.5}

            @scorer("runtime", metrics={"seconds": "lower", "kilobytes": "lower"})
            def runtime(values, *, noise: Annotated[float, "Added to every run, seconds."] = 0.0):
                """How long the program runs, compiled with the flags."""
                level, inline, unroll = values
                if level == "O0" and inline:
                    raise RuntimeError("does not compile")
                return {"seconds": COST[level] - inline - 0.1 * unroll + noise, "kilobytes": 10.0 + unroll}

            @resource("compile_s", unit="seconds", fixed=1.0)
            def compile_s(block):
                """How long a flag takes to compile with."""
                return {"O3": 5.0, "O2": 2.0}.get(block["value"], 0.5)
            '''
        )
    )
    config = {
        "name": "flags",
        "plugins": ["./flags.py"],
        "space": {
            "kind": "choices",
            "positions": {"level": ["O0", "O2", "O3"], "inline": [False, True], "unroll": [1, 4]},
        },
        "scorer": {"kind": "runtime", "noise": 0.5},
        "profile": {"resources": ["compile_s"]},
        "select": {"limits": ["compile_s<=5"]},
        "design": {"held_out": 0, "networks": 6},
        "verify": {"evaluations": 6, "per_round": 2},
    }
    path = place / "flags.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    done = mathnas("run", path, "--root", place / "flags")
    assert done.returncode == 0, done.stderr
    study = Study.open(str(place / "flags"))
    rows = {row.genotype: row for row in study.evaluations()}
    assert any(row.status == "failed" and "does not compile" in row.message for row in rows.values())
    assert study.winner == "1-1-1", "O2, inlined, unrolled: O3 takes too long to compile"
    assert rows["1-1-1"].metric == pytest.approx(4.0 - 1 - 0.4 + 0.5)
    assert "train" not in study.status()
    other = parse_config({**config, "plugins": [str(place / "flags.py")], "metric": "kilobytes"}, "test")
    measured = Study(other, study.store).evaluations()
    assert {row.genotype for row in measured} == {row.genotype for row in rows.values() if row.status == "ok"}
    assert all(row.metric == 10.0 + (4.0 if row.genotype.endswith("1") else 1.0) for row in measured)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"__init__.py": "import nothing_of_the_kind\n"}, "ModuleNotFoundError: No module named 'nothing_of_the_kind'"),
        ({"__init__.py": "x = 1\n\ndef f(:\n"}, "line 3: found SyntaxError"),
        ({"__init__.py": "raise SystemExit(3)\n"}, "SystemExit"),
        ({"__init__.py": "1 / 0\n"}, "__init__.py line 1: found ZeroDivisionError"),
        (
            {"__init__.py": "from nas_core import BLOCKS\nBLOCKS.add(int)\n"},
            "which is not derived from it",
        ),
        (
            {
                "__init__.py": "from nas_core import SEARCHERS, Searcher\n"
                "class S(Searcher):\n    '''Doc.'''\n    name = 'random'\n"
                "    def next(self, known, number): return []\n"
                "SEARCHERS.add(S)\n"
            },
            "the name twice",
        ),
        (
            {
                "__init__.py": "from nas_core import SEARCHERS, Searcher\n"
                "class S(Searcher):\n    '''Doc.'''\n    name = 'mine'\nSEARCHERS.add(S)\n"
            },
            "no next",
        ),
        (
            {
                "__init__.py": "from nas_core import scorer\n@scorer('s')\ndef s(genotype, *, power: int = 2):\n"
                "    '''Doc.'''\n    return 1.0\n"
            },
            "settings without a description: power",
        ),
        (
            {
                "__init__.py": "from nas_core import scorer\n@scorer('s')\n"
                "def s(network):\n    '''Doc.'''\n    return 1.0\n"
            },
            "parameter network, expected some of: genotype, blocks",
        ),
    ],
)
def test_what_is_wrong_with_a_plugin_is_one_line(tmp_path, files, message):
    written(tmp_path, files, "broken")
    (tmp_path / "study.yaml").write_text("plugins: [./broken]\n")
    with pytest.raises(ConfigError) as caught:
        read_config(tmp_path / "study.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_plugin_that_is_nowhere(tmp_path):
    with pytest.raises(PluginError, match="no module of this name"):
        find("no_such_module_at_all")
    with pytest.raises(PluginError, match="a folder without __init__"):
        find(str(tmp_path))


def test_a_changed_file_is_another_plugin_and_the_old_one_is_forgotten(tmp_path):
    path = tmp_path / "own.py"
    text = "from nas_core import scorer\n@scorer('own')\ndef own(genotype):\n    '''One.'''\n    return {number}.0\n"
    path.write_text(text.format(number=1))
    first = import_plugin(str(path))
    path.write_text(text.format(number=2))
    second = import_plugin(str(path))
    assert first.code != second.code
    from nas_core.scoring import SCORERS

    assert SCORERS["own"].function(None) == 2.0


def test_a_package_changed_back_brings_all_it_brought(tmp_path):
    """Its submodules are still known to Python by then, and registered nothing if they were not read again."""
    top = {"__init__.py": "from . import rates\n"}
    path = written(tmp_path, {**top, "rates.py": RATES.format(name="first")})
    first = import_plugin(str(path))
    written(tmp_path, {"rates.py": RATES.format(name="second")})
    import_plugin(str(path))
    assert "second" in SCORERS
    assert "first" not in SCORERS
    written(tmp_path, {"rates.py": RATES.format(name="first")})
    assert import_plugin(str(path)).code == first.code
    assert "first" in SCORERS
    assert "second" not in SCORERS


def test_the_same_as_an_installed_distribution(tmp_path, monkeypatch):
    """Entry points are found by `mathnas plugins`; the ids know the distribution's version."""
    source = tmp_path / "source"
    written(source, PACKAGE)
    (source / "pyproject.toml").write_text(
        textwrap.dedent(
            """
            [build-system]
            requires = ["setuptools>=77"]
            build-backend = "setuptools.build_meta"
            [project]
            name = "team-nas"
            version = "1.4"
            [project.entry-points."mathnas.plugins"]
            teamnas = "teamnas"
            [tool.setuptools]
            packages = ["teamnas"]
            """
        )
    )
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True, timeout=300)
    monkeypatch.syspath_prepend(str(target))
    importlib.invalidate_caches()
    assert installed()["teamnas"] == "teamnas"
    listed = json.loads(mathnas("plugins", "--json").stdout)
    (cell,) = [row for row in listed["things"] if row["name"] == "vector-cell"]
    assert cell["from"] == "teamnas (team-nas 1.4)"
    assert not listed["not_importable"]
    config = tmp_path / "study.yaml"
    config.write_text(yaml.safe_dump({**STUDY, "plugins": ["teamnas"]}))
    assert read_config(config).space.kind == "vector-cell"
    sys.modules.pop("teamnas", None)


def test_it_runs_as_a_deployment(place):
    """Started from Prefect's page, in a process of the runner's: the plug-in is named by its path."""
    port = _free_port()
    command = [
        str(Path(sys.executable).with_name("mathnas")),
        "serve",
        "--root",
        str(place / "studies"),
        "--port",
        str(port),
    ]
    hidden = ("RAY_ADDRESS", "PREFECT_API_URL", "MLFLOW_TRACKING_URI")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    page = subprocess.Popen(command, cwd=place, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    api = f"http://127.0.0.1:{port}/api"
    try:
        deployment = _asked(lambda: httpx.get(f"{api}/deployments/name/study/study", timeout=30), lambda _: True)
        config = {**STUDY, "plugins": [str(place / "teamnas")]}
        parameters = {"config": config, "root": str(place / "deployed"), "until": "select"}
        flow_runs = f"{api}/deployments/{deployment['id']}/create_flow_run"
        # 503 while its database is busy, as it is when it starts; Prefect's own client tries again too
        made = _asked(lambda: httpx.post(flow_runs, json={"parameters": parameters}, timeout=60), lambda _: True)
        over = ("COMPLETED", "FAILED", "CRASHED")
        run = _asked(
            lambda: httpx.get(f"{api}/flow_runs/{made['id']}", timeout=30), lambda run: run["state_type"] in over
        )
        assert run["state_type"] == "COMPLETED", run["state"]["message"]
    finally:
        page.send_signal(signal.SIGTERM)
        page.wait(timeout=120)
    assert Study.open(str(place / "deployed")).status_of("select").state == "done"


def _asked(ask, enough, patience_s: float = 300.0):
    """The server's answer, once it gives one that is enough."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            answer = ask()
            if answer.is_success and enough(answer.json()):
                return answer.json()
        time.sleep(0.5)
    raise AssertionError("no answer in time")


WRONG_SCORERS = {
    'metrics={"a": "highest"}': ("", "higher or lower"),
    'metric="a"': (", *, kind: Annotated[str, 'Which.'] = 'x'", "a setting called `kind`"),
    'metric="b"': (", *, batch: Annotated[int, 'How many.'] = 5", "a setting called `batch`"),
}


@pytest.mark.parametrize("given", WRONG_SCORERS)
def test_what_would_be_read_as_something_else_is_refused(tmp_path, given):
    setting, message = WRONG_SCORERS[given]
    path = tmp_path / "own.py"
    head = "from typing import Annotated\nfrom nas_core import scorer\n"
    path.write_text(f"{head}@scorer('own', {given})\ndef own(genotype{setting}):\n    'One.'\n    return 1.0\n")
    with pytest.raises(PluginError, match=message):
        import_plugin(str(path))


PRICES = """
from typing import Annotated
from nas_core import resource

@resource("price_known", unit="EUR")
def price(block, *, least: Annotated[float, "Least price."]):
    "What a block costs; nothing known of some."
    return least if block["value"] else float("nan")
"""


def test_a_price_that_is_no_number_is_a_failed_row_and_a_missing_setting_is_said(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(PRICES)
    import_plugin(str(path))
    family = FAMILIES["choices"](FAMILIES.section("choices")(positions={"fast": [False, True]}))
    with pytest.raises(
        ConfigError, match=r"profile\.profilers\.price_known: found nothing, expected its settings: least"
    ):
        profile_blocks(family, ProfileConfig(), ["price_known"])
    rows = profile_blocks(family, ProfileConfig(profilers={"price_known": {"least": 2}}), ["price_known"])
    known = {(row.position, row.choice): (row.status, row.value, row.message) for row in rows}
    assert known[0, 0] == ("failed", None, "ValueError: price_known is nan")
    assert known[0, 1] == ("ok", 2.0, "")


FROM_A_FILE = """
from pydantic import Field
from nas_core import FAMILIES
from nas_core.families.plain_choices import PlainChoices

@FAMILIES.add
class Own(PlainChoices):
    "Choices from a file."
    name = "own-file"
    class Settings(PlainChoices.Settings):
        file: str = Field(description="Where they come from.")
        params: dict[str, int] = Field({}, description="Numbers.")
"""


def test_settings_called_file_and_params_are_the_familys_own(tmp_path):
    """Earlier versions gave both a meaning, where a family was named by `name`."""
    path = tmp_path / "own.py"
    path.write_text(FROM_A_FILE)
    space = {"kind": "own-file", "positions": {"a": [1, 2]}, "file": "x.csv", "params": {"n": 1}}
    config = parse_config({"plugins": [str(path)], "space": space}, "test")
    assert (config.space.kind, config.space.file, config.space.params) == ("own-file", "x.csv", {"n": 1})


FAMILY = """
from pydantic import Field
from torch import nn
from nas_core import FAMILIES, BlockSpec, Family, PathText, Position, SearchSpace, Section

@FAMILIES.add
class Own(Family):
    "Two positions."
    name = "own-family"
    class Settings(Section):
        width: int = Field(8, description="Of its layers.")
        table: PathText = Field("none.csv", description="What it looks up.")
    @property
    def space(self):
        blocks = (BlockSpec.of("one"), BlockSpec.of("two"))
        return SearchSpace(name=self.name, positions=(Position(name="a", blocks=blocks),))
    def module(self, genotype, generator=None):
        return nn.{layer}()
    def parts(self, genotype):
        return []
"""


def test_a_familys_code_settings_and_files_tell_its_space_from_others(tmp_path):
    """What the space does not say decides its networks, too: what was measured of others is not theirs."""
    path, table = tmp_path / "own.py", tmp_path / "table.csv"
    table.write_text("a,b\n")

    def space_id(layer="Identity", **settings):
        path.write_text(FAMILY.format(layer=layer))
        import_plugin(str(path))
        return FAMILIES["own-family"](FAMILIES.section("own-family")(**settings)).space.space_id

    first = space_id(table=str(table))
    assert space_id(table=str(table)) == first
    assert space_id(table=str(shutil.copy(table, tmp_path / "moved.csv"))) == first
    others = {space_id("Tanh", table=str(table)), space_id(table=str(table), width=64)}
    table.write_text("a,c\n")
    assert len({first, space_id(table=str(table)), *others}) == 4


ALTERNATIVE = """
from nas_core import ALTERNATIVES, Alternative
from torch import nn

@ALTERNATIVES.add
class Own(Alternative):
    "A mean in place of a block."
    name = "own-alternative"
    def change(self, draft):
        draft.put("", nn.{layer})
        return ""
"""


def test_an_alternatives_code_tells_a_trained_models_space_from_others(tmp_path):
    path = tmp_path / "own.py"

    def family(layer):
        path.write_text(ALTERNATIVE.format(layer=layer))
        import_plugin(str(path))
        section = FAMILIES.section("model")
        library = [{"kind": "own-alternative"}]
        made = FAMILIES["model"](section(model="nas_core.testing.example_model:small_network", library=library))
        return made, made.space.space_id

    (_, first_id), (second, second_id) = family("AvgPool2d(3, 1, 1)"), family("AvgPool2d(5, 1, 2)")
    choice = Genotype((1,) * second.space.num_positions)
    assert first_id != second_id
    assert "kernel_size=5" in str(second.module(choice))
    assert family("AvgPool2d(3, 1, 1)")[1] == first_id
