"""The errors that flowkit raises: one family, in which each class is also a fitting built-in error, so that callers may catch either."""


class FlowkitError(Exception):
    """Base of every error that flowkit raises on purpose. The message says what happened, with which file or value, and what to do."""


class ParameterError(FlowkitError, ValueError):
    """A setting or an argument is out of its range, or contradicts another."""


class VideoDecodeError(FlowkitError, OSError):
    """A video could not be opened or decoded."""


class SourceChangedError(FlowkitError, RuntimeError):
    """A file was replaced, truncated or extended while it was being read."""


class ShardFormatError(FlowkitError, ValueError):
    """A shard or clip file is damaged, foreign or unsafe to read."""


class NoFlowError(FlowkitError, LookupError):
    """A clip or a data root has frames, and the flow that is asked for has not been computed yet."""


class ManifestError(FlowkitError, ValueError):
    """A split list, a manifest or a data root is damaged, foreign, or contradicts itself."""


class ScoresError(FlowkitError, ValueError):
    """A file of scores is damaged or foreign, or does not match the videos and classes that it should be combined with."""


class FeaturesError(FlowkitError, ValueError):
    """A file of features is damaged or foreign, or does not match the videos or the network that it should be used with."""


class CheckpointError(FlowkitError, ValueError):
    """A checkpoint or a weights file is damaged, foreign, or belongs to another configuration."""


class DeviceError(FlowkitError, RuntimeError):
    """A compute device is missing, too old or out of memory, or its software is missing."""


class BusyError(FlowkitError, BlockingIOError):
    """Another process is writing the same files."""


class RankError(FlowkitError, RuntimeError):
    """Another process of a run that several processes share has ended."""
