"""Draws from a trained model: python generate.py outputs/<date>/<run> --n 16 --out pictures

Writes generated.png, .svg and .npz (raw units); for audio also WAV files, of the drawn frames and
of their means, and for music MIDI files. The run folder, or a checkpoint alone, is enough.

    python generate.py RUN --steps 600 --temperature-x 0.5
    python generate.py RUN --prime 200 data.root=/elsewhere
"""

import argparse
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="folder of a run, or a checkpoint")
    parser.add_argument(
        "overrides",
        nargs="*",
        help="with --prime: options of the data, such as data.root=/elsewhere",
    )
    parser.add_argument("--n", type=int, default=16, help="how many sequences (default: 16)")
    parser.add_argument("--steps", type=int, help="frames of each (default: as the training data)")
    parser.add_argument(
        "--temperature-z",
        type=float,
        default=1.0,
        help="of the latents; 0 takes the prior's mean (default: 1)",
    )
    parser.add_argument(
        "--temperature-x",
        type=float,
        default=1.0,
        help="of the frames; 0 takes a Gaussian's mean, of a mixture that of the component with "
        "the highest peak, of bits and levels the likeliest (default: 1)",
    )
    parser.add_argument(
        "--prime",
        type=int,
        default=0,
        help="go on from so many frames of test sequences (default: 0)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    parser.add_argument(
        "--out",
        type=Path,
        help="folder of the files (default: generated/ of the run, or beside the checkpoint)",
    )
    args = parser.parse_intermixed_args()

    from runs.errors import readable_errors
    from runs.threads import wait_briefly

    wait_briefly()  # before torch is imported
    with readable_errors():
        generate(args)


def generate(args: argparse.Namespace) -> list[Path]:
    """Generates and writes sequences; returns the files."""
    from datamodules.loading import load_data
    from runs.checks import has_split_of
    from runs.samples import generate_raw, write_generated
    from vrnn.arguments import check_counts
    from vrnn.checkpoint import find_checkpoint, load_module

    check_counts("--", n=args.n, steps=args.steps)
    if args.prime < 0:
        raise ValueError(f"--prime must not be negative, as {args.prime} is")
    if args.overrides and not args.prime:
        raise ValueError(f"{args.overrides[0]} is of use with --prime only, which reads the data")
    module = load_module(args.run)
    beside = find_checkpoint(args.run).parent
    out = args.out or (beside.parent if beside.name == "checkpoints" else beside) / "generated"
    prime = None
    if args.prime:
        data = load_data(module.hparams["data"], args.overrides)
        has_split_of(beside.parent, "test", data, args.overrides)
        prime = data.beginnings("test", args.n, args.prime)
    generated = generate_raw(
        module,
        args.n,
        args.seed,
        steps=args.steps,
        prime=prime,
        temperature_z=args.temperature_z,
        temperature_x=args.temperature_x,
    )
    files = write_generated(generated, module.hparams["data"], out)
    for file in files:
        print(file)
    return files


if __name__ == "__main__":
    main()
