"""What the help pages are made of: a heading for each option, a page of the documentation for each command."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click

OTHER = "Other"

# A heading -> the options under it, by the longest flag. Help shows headings in this order.
HEADINGS: dict[str, tuple[str, ...]] = {
    "Data": (
        *(
            "--config",
            "--data",
            "--split",
            "--run",
            "--runs",
            "--base-run",
            "--phase",
            "--system",
            "--checkpoint",
            "--row",
            "--of",
            "--stride",
            "--lists",
            "--videos",
            "--classes",
            "--data-set",
        ),
        *("--segments", "--no-flow", "--allow-missing", "--tool", "--trim", "--resize", "--frame-rate", "--order", "--common", "--all"),
        *("--changed", "--sample-videos", "--sample-fields", "--deep", "--train-videos", "--test-videos", "--frames", "--force"),
        *("--validation", "--validation-groups", "--skip-cuts"),
    ),
    "Flow": (
        *(
            "--method",
            "--method-param",
            "--preset",
            "--mode",
            "--short-side",
            "--bound",
            "--mapping",
            "--codec",
            "--fps",
            "--every",
            "--stream",
            "--grey-range",
            "--solver",
            "--flow",
            "--plan",
            "--card",
        ),
        *("--tvl1-tau", "--tvl1-lambda", "--tvl1-theta", "--tvl1-num-scales", "--tvl1-scale-step", "--tvl1-num-warps", "--tvl1-epsilon"),
        *("--tvl1-inner-iterations", "--tvl1-outer-iterations", "--tvl1-median-size"),
    ),
    "Trajectories": ("--components", "--camera-motion", "--pixels", "--encoder"),
    "Network": (
        *("--train", "--recipe", "--weights", "--init-from", "--depth", "--base-width", "--input-size", "--head-pool"),
        *("--injection", "--injection-direction", "--injection-kind", "--injection-stages", "--temporal-convolution"),
        *("--temporal-stages", "--temporal-init", "--temporal-padding", "--temporal-pool-position", "--variants", "--crops"),
    ),
    "Schedule": (
        *(
            "--schedule",
            "--steps-per-phase",
            "--batch",
            "--bn-group",
            "--bn-moments",
            "--lr",
            "--corners",
            "--balance",
            "--select",
        ),
        *("--seed", "--seeds", "--set", "--resume", "--restart", "--checkpoint-steps"),
    ),
    "Fusion": ("--fusion", "--fusion-weights", "--method", "--normalise", "--folds", "--vectors"),
    "Hardware": (
        *("--device", "--jobs", "--shard", "--cluster", "--time-limit", "--memory-limit", "--grace", "--amp", "--compile"),
        *("--checkpoint-activations", "--crop-on", "--workers", "--videos-per-pass", "--window"),
    ),
    "Output": (
        *(
            "--output",
            "--reports",
            "--report",
            "--redraw",
            "--replace",
            "--tensorboard",
            "--write-config",
            "--shard-size",
            "--layer",
            "--average",
            "--mirror",
            "--move",
            "--layout",
            "--gallery",
        ),
        *("--animation", "--trajectories", "--top", "--dry-run", "--fail-on-damaged", "--overwrite", "--json", "--help"),
    ),
    OTHER: (),
}
# A command and an option -> its heading, where the option means something else than in other commands.
_ELSEWHERE = {
    ("fuse", "--weights"): "Fusion",
    ("import", "--frames"): "Data",
    ("extract", "--camera-motion"): "Flow",
    ("demo", "--steps-per-phase"): "Schedule",
}
_HEADING = {flag: heading for heading, flags in HEADINGS.items() for flag in flags}

# A command -> lines to start from.
EXAMPLES = {
    "extract": (
        "flowkit extract videos/",
        "flowkit extract videos/ --dry-run                     how much time and disk it takes",
        "flowkit extract videos/ --preset paper --mapping paper",
        "flowkit extract videos/ --shard 1/4                   one of four machines",
    ),
    "pack": (
        "flowkit pack --split 1",
        "flowkit pack --split 2 --lists ucfTrainTestlist/",
        "flowkit pack --classes present                        of official lists, only the classes you have",
        "flowkit pack --lists my-split.csv --move",
    ),
    "train": (
        "flowkit train",
        "flowkit train --recipe official --weights resnet50.safetensors --amp bf16",
        "flowkit train --run slow --set motion.lr=0.001",
        "flowkit train --system st-resnet-star+idt             improved trajectories too, for the rows with + IDT",
        "flowkit train --init-from other-data/runs/default     go on from what was learnt on other data",
    ),
    "evaluate": ("flowkit evaluate", "flowkit evaluate --run slow --split 1,2,3", "flowkit evaluate --checkpoint network.safetensors"),
    "compare": ("flowkit compare", "flowkit compare --train --recipe small"),
    "ablate": ("flowkit ablate connections", "flowkit ablate all --dry-run"),
    "fuse": (
        "flowkit fuse idt.csv",
        "flowkit fuse flowkit-data/features/default-split1-st-resnet.h5",
        "flowkit fuse c3d-split{split}.npz --split 1,2,3 --weights 2,1",
    ),
    "features": (
        "flowkit features                                       the 25 frames of the test, each stream of the last network",
        "flowkit features --of motion --frames all --stride 4",
        "flowkit features --average --output vectors/           one .npy file for each video and stream",
        "flowkit features --of idt                              improved dense trajectories, one vector for each video",
        "flowkit features *.mp4 --frames all --output mine.h5   any video files, which need no data root",
    ),
    "predict": (
        "flowkit predict holiday.mp4",
        "flowkit predict *.mp4 --top 3 --json",
        "flowkit predict a.mp4 --checkpoint network.safetensors",
    ),
    "verify": ("flowkit verify", "flowkit verify flowkit-data/shards/shard-00000.h5"),
    "info": ("flowkit info", "flowkit info flowkit-data/shards/shard-00000.h5 --json"),
    "stats": ("flowkit stats --split 1", "flowkit stats --all"),
    "inspect": (
        "flowkit inspect Archery/v_Archery_g01_c01",
        "flowkit inspect Archery/v_Archery_g01_c01 --animation gif",
        "flowkit inspect Archery/v_Archery_g01_c01 --trajectories",
        "flowkit inspect --gallery",
        "flowkit inspect --gallery --all --run slow",
    ),
    "import": ("flowkit import flow_images/ --tool denseflow --bound 20",),
    "export": ("flowkit export --layout rawframes --output images/", "flowkit export --layout webdataset --output tars/ --split 1"),
    "convert": (
        "flowkit convert default network.safetensors",
        "flowkit convert default network.onnx",
        "flowkit convert their-network.mat network.safetensors --data-set ucf101",
    ),
    "lists": (
        "flowkit lists ucf101 ucfTrainTestlist/",
        "flowkit lists hmdb51 testTrainMulti_7030_splits/ --videos HMDB51/",
    ),
    "doctor": ("flowkit doctor", "flowkit doctor --plan 340x256 --card H200"),
    "demo": ("flowkit demo", "flowkit demo --output demo --overwrite"),
    "config": ("flowkit config train", "flowkit config --changed"),
    "completion": ('eval "$(flowkit completion bash)"',),
}

# A command -> the page of docs/ that explains it.
PAGES = {
    "extract": "pipeline.md",
    "pack": "pipeline.md",
    "train": "training.md",
    "evaluate": "report.md",
    "compare": "systems.md",
    "ablate": "ablations.md",
    "fuse": "using-a-model.md",
    "features": "features.md",
    "predict": "using-a-model.md",
    "verify": "data-tools.md",
    "info": "data-tools.md",
    "stats": "data-tools.md",
    "inspect": "data-tools.md",
    "import": "data-tools.md",
    "export": "data-tools.md",
    "convert": "using-a-model.md",
    "lists": "official-lists.md",
    "doctor": "gpu.md",
    "demo": "report.md",
    "config": "commands.md",
    "completion": "commands.md",
}

# The groups of commands in the main help.
COMMAND_GROUPS = {
    "From videos to a trained network": ("extract", "pack", "train", "evaluate", "demo"),
    "Look at data": ("info", "stats", "inspect", "verify", "lists"),
    "Use and compare networks": ("predict", "features", "fuse", "compare", "ablate"),
    "Exchange data and networks": ("import", "export", "convert"),
    "Set up": ("doctor", "config", "completion"),
}


def heading_of(command: str, option: click.Option) -> str:
    """Return the heading under which the help page of a command shows an option; `OTHER` if the option has none."""
    flag = max(option.opts, key=len)
    return _ELSEWHERE.get((command, flag)) or _HEADING.get(flag, OTHER)
