"""What every stage's thread does around its own loop: report how it ended, and let its neighbours know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tradebot.core.channel import ConsumerGone
from tradebot.core.errors import ExitCode, TradebotError
from tradebot.core.log_events import LogEvent
from tradebot.core.runtime import Runtime
from tradebot.output.log import Log
from tradebot.threads.shutdown import Control


class InputChannel(Protocol):
    """Where a stage takes from."""

    def abandon(self) -> None:
        """Nobody takes any more."""
        ...


class OutputChannel(Protocol):
    """Where a stage puts."""

    def close(self) -> None:
        """This stage puts nothing any more."""
        ...


class Stage(Protocol):
    """A step of the pipeline, run by one thread from start to end."""

    @property
    def name(self) -> str:
        """What logs call it."""
        ...

    @property
    def inputs(self) -> Sequence[InputChannel]:
        """The channels from which only this stage takes."""
        ...

    @property
    def outputs(self) -> Sequence[OutputChannel]:
        """The channels on which nothing is put after this stage has ended."""
        ...

    def run(self) -> None:
        """Work until the input is drained or a stop is seen. Blocks only through the seam."""
        ...


class StageThread:
    """Runs one stage, so that no way of ending goes unnoticed: a dead thread never leaves the process living on."""

    def __init__(self, runtime: Runtime, stage: Stage, control: Control, log: Log) -> None:
        self._runtime = runtime
        self._stage = stage
        self._control = control
        self._log = log.bind(stage.name)
        self.busy_s = 0.0

    def main(self) -> None:
        """The thread's target. Never raises for an error of the stage: it is recorded in the control."""
        stage, control = self._stage, self._control
        try:
            stage.run()
        except ConsumerGone:
            pass  # the stage after this one has recorded its failure, or the engine gave up draining
        except TradebotError as error:
            self._log.error(
                "stage failed",
                event=LogEvent.STAGE_FAILED,
                stage=stage.name,
                exit_code=int(error.exit_code),
                detail=str(error),
            )
            control.fail(error.exit_code, stage.name, str(error))
        except Exception as error:
            self._log.error("thread crashed", event=LogEvent.THREAD_CRASHED, stage=stage.name, exc_info=error)
            control.fail(ExitCode.CRASH, stage.name, f"{type(error).__name__}: {error}")
        except BaseException as error:
            # SystemExit, KeyboardInterrupt, a panic of a compiled library: no way of ending a run with 0.
            control.fail(ExitCode.CRASH, stage.name, f"{type(error).__name__}: {error}")
            self._log.error("thread crashed", event=LogEvent.THREAD_CRASHED, stage=stage.name, exc_info=error)
        finally:
            self.busy_s = self._runtime.cpu_seconds()
            self.end()

    def end(self) -> None:
        """Let the neighbours and the control know that this stage has ended, or will never start."""
        for taken_from in self._stage.inputs:
            taken_from.abandon()
        for put_to in self._stage.outputs:
            put_to.close()
        self._control.ended(self._stage.name)
