"""Plays evaluation episodes in several processes, each with an environment and an agent of its own."""

import multiprocessing
import os
import pickle
import signal
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

import torch

from urlbench.core.errors import UserError
from urlbench.core.interfaces import Agent, Environment
from urlbench.core.jobs import Job, JobSpec
from urlbench.core.registry import load_plugin
from urlbench.training.assembly import build_environment, build_untrained_agent, precision_of, set_up_torch
from urlbench.training.evaluation import Episode, LocalPlayer, Outcome, Player, Tick, play_episode

_POLL_SECONDS = 0.1
_READY, _STARTING = "ready", -1


@contextmanager
def open_player(job: Job, environment: Environment, device: str, env_workers: int) -> Iterator[Player]:
    """What plays the evaluation episodes of a job: this process if `env_workers` is 1, else so many others.

    They are started at the first evaluation, and end with the context.

    Args:
        job: whose environment and agent they build.
        environment: of the job, for playing in this process.
        device: of torch.
        env_workers: at least 1; does not change results.
    """
    if env_workers == 1:
        yield LocalPlayer(environment, job.spec.protocol.search)
        return
    player = ProcessPlayer(job.spec, job.plugins, device, env_workers)
    try:
        yield player
    finally:
        player.close()


@dataclass
class _Worker:
    """A process and what it is doing.

    Attributes:
        block: number of the block that it plays; `_STARTING` at first, None when it waits.
        current: it has the weights of the evaluation under way.
    """

    process: SpawnProcess
    connection: Connection
    block: int | None = _STARTING
    current: bool = False


class ProcessPlayer:
    """A `Player` that hands out blocks of episodes to processes and returns the results in order.

    Args:
        spec: of the job.
        plugins: that register its suite or agent.
        device: of torch.
        workers: at most so many processes.
    """

    def __init__(self, spec: JobSpec, plugins: tuple[str, ...], device: str, workers: int) -> None:
        self._spec, self._plugins, self._device, self._most = spec, plugins, device, workers
        self._workers: list[_Worker] = []

    def play(self, agent: Agent, blocks: Sequence[Sequence[Episode]], tick: Tick) -> Iterator[list[Outcome]]:
        """See `Player`; what fails in a process is raised here.

        Raises:
            UserError: if a process is gone.
        """
        weights = _serialised(agent)
        for worker in self._workers:
            # One that takes long to start may not have had a block yet.
            assert worker.block in (None, _STARTING), "an evaluation was left before its end"
            worker.current = False
        while len(self._workers) < min(self._most, len(blocks)):
            self._workers.append(self._start())
        results: dict[int, list[Outcome]] = {}
        todo = iter(range(len(blocks)))
        for number in range(len(blocks)):
            while number not in results:
                for worker in self._workers:
                    if worker.block is None and (block := next(todo, None)) is not None:
                        worker.connection.send((None if worker.current else weights, list(blocks[block])))
                        worker.block, worker.current = block, True
                self._collect(results, tick)
            yield results.pop(number)

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_serve, args=(theirs, self._spec, self._plugins, self._device), name="evaluation", daemon=True
        )
        process.start()
        theirs.close()  # so that reading from a dead process ends
        return _Worker(process, ours)

    def _collect(self, results: dict[int, list[Outcome]], tick: Tick) -> None:
        """Wait a moment for results."""
        busy = {worker.connection: worker for worker in self._workers if worker.block is not None}
        ready = wait(list(busy), timeout=_POLL_SECONDS)
        tick()
        for connection in ready:
            assert isinstance(connection, Connection)
            worker = busy[connection]
            try:
                answer = connection.recv()
            except EOFError as error:
                raise _ended(worker.process) from error
            if isinstance(answer, BaseException):
                raise answer
            if answer != _READY:
                assert worker.block is not None
                results[worker.block] = answer
            worker.block = None

    def close(self) -> None:
        """End the processes, whatever they are doing; they hold nothing that is missed."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.connection.close()
        self._workers.clear()


def _ended(process: SpawnProcess) -> UserError:
    process.join()
    code = process.exitcode or 0
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    hint = ", perhaps for lack of memory; use fewer --env-workers" if code == -signal.SIGKILL else ""
    return UserError(f"an evaluation process {how}{hint}; the same command with --rerun failed continues.")


def _serialised(agent: Agent) -> bytes:
    buffer = BytesIO()
    torch.save(agent.state_dict(), buffer)
    return buffer.getvalue()


# --- In the processes -------------------------------------------------------------------------------


class _ParentGone(Exception):
    """The process that asked for the episodes has ended."""


def _serve(connection: Connection, spec: JobSpec, plugins: tuple[str, ...], device: str) -> None:
    """Play blocks until the other side is gone."""
    # A request to stop is the parent's to answer: it ends these processes when it has to.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    parent = os.getppid()

    def tick() -> None:
        if os.getppid() != parent:
            raise _ParentGone

    answer: object = _READY
    try:
        for plugin in plugins:
            load_plugin(plugin)
        set_up_torch(device, threads=1, precision=precision_of(spec))
        environment = build_environment(spec)
        agent = build_untrained_agent(spec, environment, device)
        rules = spec.protocol.search
        while (message := _exchange(connection, answer)) is not None:
            weights, block = message
            if weights is not None:
                agent.load_state_dict(torch.load(BytesIO(weights), map_location="cpu", weights_only=True))
            answer = [play_episode(environment, agent, episode, rules, tick) for episode in block]
    except _ParentGone:
        pass
    except Exception as error:
        _exchange(connection, _portable(error))


def _exchange(connection: Connection, answer: object) -> tuple[bytes | None, list[Episode]] | None:
    """Hand over an answer and wait for the next block; None if the other side is gone."""
    try:
        connection.send(answer)
        message: tuple[bytes | None, list[Episode]] = connection.recv()
    except (EOFError, ConnectionError):
        return None
    return message


def _portable(error: Exception) -> Exception:
    """The error with its traceback as a note; another one with its words if it cannot be sent."""
    error.add_note(f"in an evaluation process:\n{traceback.format_exc()}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        other = RuntimeError(f"{type(error).__name__}: {error}")
        other.__notes__ = error.__notes__
        return other
    return error
