"""Kills commands, or lets their disk fail, at the boundaries of what they write, and starts them again.

    python tests/faults/harness.py FOLDER [--scenarios training export] [--actions kill "disk full"] [--kills 3]

Each run is a fork of this process, which has imported everything and computed nothing. After a kill or a fault, the
same command runs once more and must leave what an undisturbed run leaves. The count of boundaries is printed.
"""

import argparse
import os
import re
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

os.environ.update({"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"})
sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from faults.boundaries import FAULTS, Boundaries  # noqa: E402
from faults.scenarios import SCENARIOS, Scenario, prepare  # noqa: E402

from bertkd.cli import augment, commands, dynabert, export, extract, main, patient_kd, prune  # noqa: E402

# The commands of the scenarios, which `main` would import in each fork.
WARM = (augment, commands, dynabert, export, extract, patient_kd, prune)

DONE, SENTENCE, TRACEBACK = 0, 3, 4
# What only a programmer understands.
UNCLEAR = re.compile(r"Traceback|Errno|object at 0x|enforce fail|os error")
# Files that a finished command must not leave.
LEFTOVERS = re.compile(r"\.tmp$|\.partial$|\.old$|^_in_use$|^\.writable")
# A process whose partner was killed ends by itself, or is ended after so many seconds.
PATIENCE = 20


class Failed(Exception):
    """Tells that a run left what it must not leave."""


def forked(work: Callable[[], None], output: Path) -> int:
    """Starts a fork of this process and returns its process id; its output goes to a file."""
    child = os.fork()
    if child:
        return child

    code = TRACEBACK
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        work()
        code = DONE
    except SystemExit as error:
        code = SENTENCE if isinstance(error.code, str) else DONE
        print(f"\nSENTENCE: {error.code}", flush=True)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(code)


def run(scenario: Scenario, line: str, made: Path, folder: Path, boundaries: tuple[str, int] = ("none", -1)) -> int:
    """Carries out a command in forks of this process; returns the exit code of the first, negative for a signal."""
    words = line.format(made=made, dir=folder).split()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]

    def work(rank: int) -> Callable[[], None]:
        def carry_out() -> None:
            if scenario.processes > 1:
                os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(scenario.processes)})
                os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
            if rank == 0:
                action, at = boundaries
                root, log = folder / scenario.counts, folder.with_suffix(".log")
                Boundaries(root, log, action, at, folder / "out").install()  # type: ignore[arg-type]
            main(words)

        return carry_out

    children = [forked(work(rank), folder.with_suffix(f".{rank}.txt")) for rank in range(scenario.processes)]
    codes: dict[int, int] = {}
    deadline = float("inf")
    while len(codes) < len(children):
        for child in set(children) - codes.keys():
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                codes[child] = os.waitstatus_to_exitcode(status)
                deadline = min(deadline, time.monotonic() + PATIENCE)
            elif time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
        time.sleep(0.005)
    return codes[children[0]]


def said(folder: Path) -> str:
    return folder.with_suffix(".0.txt").read_text(errors="replace")


def expect(is_right: bool, what: str, folder: Path) -> None:
    if not is_right:
        raise Failed(f"{what}\n{said(folder)[-3000:]}")


def in_child(work: Callable[[], None], folder: Path) -> None:
    """Carries out work that computes, which this process must not do before it forks again."""
    child = forked(work, folder.with_suffix(".work.txt"))
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != DONE:
        raise Failed(folder.with_suffix(".work.txt").read_text()[-3000:])


def start_over(scenario: Scenario, before: Path, folder: Path) -> None:
    """Puts a run's own folder back to what it was before the command."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(before, folder)


def disturb(name: str, action: str, at: int, made: Path, work: Path, expected: object, earlier: object) -> None:
    """Disturbs one run at one boundary, looks at what it left, and starts it again.

    Raises:
        Failed: it left something half written, said something unclear, or did not come to the same end.
    """
    scenario, folder = SCENARIOS[name], work / "run"
    start_over(scenario, work / "before", folder)
    code = run(scenario, scenario.line, made, folder, (action, at))

    if action == "kill":
        expect(code == -signal.SIGKILL, f"It was to be killed and ended with {code}.", folder)
    else:
        # A fault in what is only tidied up may be passed over.
        expect(code in (DONE, SENTENCE), f"It ended with {code} and not with a sentence.", folder)
        if code == SENTENCE:
            sentence = said(folder).rpartition("SENTENCE: ")[2]
            expect(not UNCLEAR.search(sentence), "Its sentence is unclear.", folder)
    if action != "vanished":
        left = scenario.answer(folder)
        expect(
            left is None or left in (expected, earlier), "What it left is neither the earlier nor the new one.", folder
        )

    code = run(scenario, scenario.line, made, folder)
    if action == "vanished" and code == SENTENCE:
        # The folder came back while the command went on, and nobody can tell what is in it.
        return
    expect(code == DONE, f"Started again, it ended with {code}.", folder)
    expect(scenario.answer(folder) == expected, "Started again, it came to another end.", folder)
    leftovers = [str(file.relative_to(folder)) for file in folder.rglob("*") if LEFTOVERS.search(file.name)]
    expect(not leftovers, f"It left {', '.join(leftovers)}.", folder)


def boundaries_of(name: str, made: Path, work: Path) -> tuple[list[str], object, object]:
    """Runs a scenario undisturbed; returns its boundaries, its answer, and the answer before it."""
    scenario, before, folder = SCENARIOS[name], work / "before", work / "run"
    before.mkdir(parents=True)
    if scenario.earlier is not None:
        expect(run(scenario, scenario.earlier, made, before) == DONE, "The earlier command failed.", before)
    earlier = scenario.answer(before)

    start_over(scenario, before, folder)
    expect(run(scenario, scenario.line, made, folder) == DONE, "It failed undisturbed.", folder)
    lines = folder.with_suffix(".log").read_text().splitlines()
    answer = scenario.answer(folder)
    expect(answer is not None and answer != earlier, "It left nothing.", folder)
    return lines, answer, earlier


def chosen(count: int, sample: int | None) -> list[int]:
    """All boundaries, or some that are evenly spaced."""
    if sample is None or sample >= count:
        return list(range(count))
    return [round((number + 0.5) * count / sample - 0.5) for number in range(sample)]


def main_of_harness() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="An empty folder to work in.")
    parser.add_argument("--scenarios", nargs="+", default=list(SCENARIOS), choices=list(SCENARIOS))
    parser.add_argument("--actions", nargs="+", default=["kill", *FAULTS], choices=["kill", *FAULTS])
    parser.add_argument("--kills", type=int, help="How many boundaries of a scenario to kill at; default: all.")
    parser.add_argument(
        "--faults", type=int, default=12, help="How many boundaries to let the disk fail at, each time."
    )
    options = parser.parse_args()

    folder, made = options.folder.resolve(), options.folder.resolve() / "made"
    made.mkdir(parents=True)
    os.environ["HF_DATASETS_CACHE"] = str(folder / "datasets")
    in_child(lambda: prepare(made), made)

    failures = total = 0
    for name in options.scenarios:
        work = folder / name.replace(" ", "-")
        lines, expected, earlier = boundaries_of(name, made, work)
        for action in options.actions:
            tried = chosen(len(lines), options.kills if action == "kill" else options.faults)
            total += len(tried)
            started = time.perf_counter()
            for at in tried:
                try:
                    disturb(name, action, at, made, work, expected, earlier)
                except Failed as error:
                    failures += 1
                    print(f"FAILED: {name}, {action} at boundary {at} ({lines[at]}): {error}\n", flush=True)
            seconds = time.perf_counter() - started
            print(f"{name}: {action} at {len(tried)} of {len(lines)} boundaries ({seconds:.0f} s)", flush=True)
    print(f"{total} runs were disturbed and started again, {failures} of them failed.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main_of_harness())
