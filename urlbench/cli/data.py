"""`urlbench data`: the data sets that offline suites pretrain on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from urlbench.cli.options import (
    ConfigOption,
    DataOption,
    DeviceOption,
    JsonOption,
    OverrideOption,
    PluginOption,
    ThreadsOption,
    load_plugins,
)
from urlbench.core.errors import UserError
from urlbench.core.exorl import BASE_URL, MAIN_METHOD, suite_name

app = typer.Typer(
    name="data",
    help="Collect, download, import, check and relabel the data sets that offline suites pretrain on.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

DomainOption = Annotated[str, typer.Option("--domain", help="walker, quadruped or jaco.")]
CollectionOption = Annotated[str, typer.Option("--collection", help="Name of the method that collected it, as in rnd.")]


@app.command()
def collect(
    domain: DomainOption,
    agent: Annotated[str, typer.Option("--agent", help="Who explores; see: urlbench list agents")],
    transitions: Annotated[str, typer.Option("--transitions", help="How many, such as 100k; ends with an episode.")],
    collection: Annotated[str | None, typer.Option("--collection", help="Its name [default: the agent's]")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the agent and the environment.")] = 0,
    preset: Annotated[str, typer.Option("--preset", help="Settings of the agent: paper, small or smoke.")] = "paper",
    override: OverrideOption = None,
    config: ConfigOption = None,
    plugin: PluginOption = None,
    data: DataOption = Path("data"),
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Collect a data set with an agent's reward-free pretraining; the same command continues an interrupted one."""
    from urlbench.data.collection import CollectionRequest, collect as collect_data, prepare_collection
    from urlbench.runs.plan import parse_frames
    from urlbench.training.worker import StopRequest

    root = data.resolve()
    request = CollectionRequest(
        domain=domain,
        agent=agent,
        collection=collection or agent,
        transitions=parse_frames(transitions),
        seed=seed,
        preset=preset,
        overrides=tuple(override or ()),
        config_file=config,
        plugins=tuple(plugin or ()),
    )
    _, directory = prepare_collection(request, root)
    stop = StopRequest(None)
    stop.listen()
    with _Display() as display, _following(directory.status_file, display.bar("collecting", "transitions")):
        dataset = collect_data(request, root, threads=threads or 1, device=device, stop=stop)
    if dataset is None:
        print("stopped on request; everything is saved, and the same command continues where it stopped")
        raise typer.Exit(3)
    _announce(dataset.folder)


@app.command()
def verify(
    path: Annotated[Path | None, typer.Argument(help="the folder of a data set; or name it with the options")] = None,
    domain: Annotated[str | None, typer.Option("--domain", help="walker, quadruped or jaco.")] = None,
    collection: Annotated[str | None, typer.Option("--collection", help="Name of the collection.")] = None,
    data: DataOption = Path("data"),
    episodes: Annotated[int, typer.Option("--episodes", help="How many the simulator replays.", min=1)] = 5,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a data set: files, numbers, and its physics against the simulator. Exit code 1 if anything is wrong."""
    from urlbench.data.verification import verify as verify_data
    from urlbench.episodes.datasets import Dataset, find_dataset

    load_plugins(plugin)
    if path is not None and domain is None and collection is None:
        dataset = Dataset(path)
    elif path is None and domain is not None and collection is not None:
        dataset = find_dataset(data, domain, collection)
    else:
        raise UserError("name a data set by its folder, or with both --domain and --collection.")
    with _Display(hidden=as_json) as display:
        reading = display.counter("reading", "files", len(dataset.index.files))
        checks = verify_data(dataset, episodes=episodes, advance=reading)
    if as_json:
        import json

        print(json.dumps([check.model_dump(mode="json") for check in checks], indent=2))
    else:
        for check in checks:
            print(f"{check.result:<8} {check.name}: {check.detail}")
    raise typer.Exit(1 if any(check.result == "failed" for check in checks) else 0)


@app.command("import")
def import_command(
    folder: Annotated[Path, typer.Argument(help="a folder of episodes, such as an unpacked archive of ExORL")],
    domain: Annotated[str, typer.Option("--domain", help="Of the suite, such as walker.")],
    collection: CollectionOption,
    data: DataOption = Path("data"),
    suite: Annotated[str, typer.Option("--suite", help="It says what episodes look like.")] = suite_name(MAIN_METHOD),
    task: Annotated[str | None, typer.Option("--task", help="Whose rewards are stored, if you know it.")] = None,
    plugin: PluginOption = None,
) -> None:
    """Take a folder of episodes as a data set: links its files (or copies them to another disk) and indexes them."""
    from urlbench.data.importing import import_folder

    load_plugins(plugin)
    with _Display() as display:
        indexing = display.counter("indexing", "files", None)
        dataset = import_folder(folder, data, domain, collection, suite=suite, task=task, advance=indexing)
    _announce(dataset.folder)


@app.command()
def relabel(
    domain: DomainOption,
    collection: CollectionOption,
    task: Annotated[str, typer.Option("--task", help="Whose rewards to compute, such as walker_flip.")],
    data: DataOption = Path("data"),
    plugin: PluginOption = None,
) -> None:
    """Compute the rewards of a task from the stored physics, as a new data set called COLLECTION-TASK."""
    from urlbench.data.relabelling import relabel as relabel_data
    from urlbench.episodes.datasets import find_dataset

    load_plugins(plugin)
    count = len(find_dataset(data, domain, collection).index.files)
    with _Display() as display:
        relabelling = display.counter("relabelling", "files", count)
        dataset = relabel_data(data, domain, collection, task, advance=relabelling)
    _announce(dataset.folder)


@app.command()
def download(
    domain: DomainOption,
    collection: CollectionOption,
    data: DataOption = Path("data"),
    base_url: Annotated[str, typer.Option("--base-url", help="Where the archives lie.")] = BASE_URL,
    sha256: Annotated[str | None, typer.Option("--sha256", help="What the archive's must be.")] = None,
) -> None:
    """Download a data set of ExORL, unpack and index it; the same command continues an interrupted one."""
    from urlbench.data.download import download as download_data

    with _Display() as display:
        dataset = download_data(
            data,
            domain,
            collection,
            base_url=base_url,
            sha256=sha256,
            advance=display.bar("downloading", "bytes"),
            indexed=display.counter("indexing", "files", None),
        )
    _announce(dataset.folder)


class _Display:
    """Progress bars; on what is no terminal, only their end is shown."""

    def __init__(self, hidden: bool = False) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"))
        self._progress = Progress(*columns, TimeRemainingColumn(), disable=hidden)

    def __enter__(self) -> "_Display":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def bar(self, description: str, unit: str) -> Callable[[int, int | None], None]:
        """A bar that is told how many of `unit` are done, and of how many if that is known."""
        task = self._progress.add_task(description, count="", visible=False)

        def show(done: int, total: int | None) -> None:
            count = f"{done:,}" + (f" of {total:,}" if total is not None else "") + f" {unit}"
            self._progress.update(task, completed=done, total=total, count=count, visible=True)

        return show

    def counter(self, description: str, unit: str, total: int | None) -> Callable[[int], None]:
        """A bar that is told how many more are done."""
        show, done = self.bar(description, unit), 0

        def advance(more: int) -> None:
            nonlocal done
            done += more
            show(done, total)

        return advance


@contextmanager
def _following(status_file: Path, show: Callable[[int, int | None], None]) -> Iterator[None]:
    """Show what a run in this process writes into its status, while it is under way."""
    import threading

    from urlbench.runs.store import Status

    over = threading.Event()

    def follow() -> None:
        while not over.wait(1.0):
            update()

    def update() -> None:
        status = Status.model_validate_json(status_file.read_bytes())
        show(status.progress, status.budget)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        update()


def _announce(folder: Path) -> None:
    from urlbench.episodes.datasets import Dataset

    index = Dataset(folder).index
    print(
        f"{folder}: {index.transitions} transitions of {index.domain} in {len(index.files)} episodes, "
        f"{index.origin.kind} from {index.origin.source}"
    )
    print(f"check it with: urlbench data verify {folder}")
