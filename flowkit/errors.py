"""The errors flowkit raises: one family, each member also the built-in that fits, so callers may catch either."""


class FlowkitError(Exception):
    """Base of every error that flowkit raises on purpose. Its message says what, which file or value, and what to do."""


class ParameterError(FlowkitError, ValueError):
    """A setting or argument is out of its range, or contradicts another."""


class VideoDecodeError(FlowkitError, OSError):
    """A video could not be opened or decoded."""


class ShardFormatError(FlowkitError, ValueError):
    """A shard or clip file is damaged, foreign or unsafe to read."""


class ManifestError(FlowkitError, ValueError):
    """A split list, manifest or data root does not hold what it must."""


class ScoresError(FlowkitError, ValueError):
    """A file of scores is damaged or foreign, or does not fit the videos and classes that it is to be joined with."""


class CheckpointError(FlowkitError, ValueError):
    """A checkpoint or weights file is damaged, foreign, or belongs to another configuration."""


class DeviceError(FlowkitError, RuntimeError):
    """A compute device is missing, too old, out of memory, or lacks its software."""


class BusyError(FlowkitError, BlockingIOError):
    """Another process writes the same files."""


class RankError(FlowkitError, RuntimeError):
    """Another process of a run that several share has ended."""
