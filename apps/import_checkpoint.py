"""Turn a published pickle into a snapshot of ours, without running it. python apps/import_checkpoint.py --help"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dnnlib.errors import CheckpointError, ConfigError
from dnnlib.options import Options, boolean, nearest, run

NETWORKS = ("G_ema", "G", "D")
EXAMPLES = """examples:
  python apps/import_checkpoint.py --source=ffhq512-128.pkl --dest=ffhq512-128.safetensors
  python apps/import_checkpoint.py --source=ffhq256 --dest=ffhq256.safetensors --networks=G_ema
Pickles of StyleGAN2-ada-pytorch, StyleGAN3's StyleGAN2 and EG3D. Nothing in them is run or imported. generate.py,
resume= and the other apps also take them as they are; a snapshot is smaller, and opens faster. NAMEs are those under
`pretrained` in configs/model/*.yaml; they are downloaded once."""


def names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def read_options():
    parser = Options(description=__doc__, epilog=EXAMPLES)
    add = parser.add_argument
    add("--source", required=True, metavar="FILE|NAME", help="the pickle")
    add("--dest", required=True, metavar="FILE", help="the snapshot to write, .safetensors")
    add("--networks", type=names, metavar="A,B", help=f"of {', '.join(NETWORKS)} [all that it holds]")
    add("--force", type=boolean, nargs="?", const=True, default=False, metavar="BOOL", help="replace an old --dest")
    args = parser.parse_args()
    for name in args.networks or ():
        if name not in NETWORKS:
            raise ConfigError(f"--networks: there is no network {name}{nearest(name, NETWORKS)}")
    if args.networks == []:
        raise ConfigError(f"--networks= is empty: name some of {', '.join(NETWORKS)}, or leave it out")
    args.dest = Path(args.dest).expanduser()
    if args.dest.suffix != ".safetensors":
        raise ConfigError(f"--dest={args.dest} must end in .safetensors, by which snapshots are found")
    if args.dest.exists() and not args.force:
        raise ConfigError(f"--dest={args.dest} is there already: choose another name, or add --force to replace it")
    return args


def main():
    args = read_options()
    from training.importers.nvlabs_pickle import is_pickle  # torch comes only now, so that --help is quick
    from training.importers.published import read_published
    from training.snapshot import find_snapshot, save_snapshot

    source = find_snapshot(args.source)
    if not is_pickle(source):
        raise CheckpointError(f"{source} is no pickle: if it is a snapshot of ours, it needs no import")
    if args.dest.exists() and args.dest.samefile(source):
        raise ConfigError(f"--dest={args.dest} is the source itself: choose another name")
    published = read_published(source)
    lacking = [name for name in args.networks or () if name not in published.nets]
    if lacking:
        raise CheckpointError(f"{source} holds no network {lacking[0]}: it has {', '.join(published.nets)}")
    nets = {name: net for name, net in published.nets.items() if name in (args.networks or published.nets)}
    save_snapshot(args.dest, nets, published.config_of(nets), nimg=0)
    for name, net in nets.items():
        count = sum(p.numel() for p in net.parameters())
        print(f"{name:<6} {published.classes[name]:<24} {count:>12,} parameters  {type(net).__name__}")
    for quirk in published.quirks:
        print(f"kept as these weights need it: {quirk}")
    print(f"{args.dest} holds {', '.join(nets)}. The licence of these weights is that of their publisher.")


if __name__ == "__main__":
    run(main)
