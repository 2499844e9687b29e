"""Write critters, the procedural data set, as ordinary zips or folders. python apps/make_critters.py --help"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dnnlib.limits import check_numbers
from dnnlib.options import Options, at_least, boolean, run
from dnnlib.progress import progress

EXAMPLES = """examples:
  python apps/make_critters.py --dest=critters64.zip
  python apps/make_critters.py --dest=c.zip --labels-dest=c_maps.zip --num=2000 --resolution=128 --seed=1
  python apps/make_critters.py --dest=critters.zip --label=camera      (labels of 25 numbers, which EG3D reads)
Item i of a seed is the same critter at every resolution. Training uses seed 0; held-out identities are seed 1's."""


def read_options():
    parser = Options(description=__doc__, epilog=EXAMPLES)
    add = parser.add_argument
    add("--dest", required=True, metavar="ZIP|DIR", help="images and dataset.json")
    add("--num", type=at_least(1), default=10_000, metavar="N", help="critters [10000]")
    add("--resolution", type=at_least(4), default=64, metavar="R", help="pixels along a side [64]")
    add("--seed", type=at_least(0), default=0, metavar="N", help="another seed, other critters [0]")
    add("--poses", choices=["face", "sphere"], default="face", help="cameras in front or all around [face]")
    add("--label", choices=["class", "camera"], default="class", help="labels; class has cameras beside it [class]")
    add("--mirror", type=boolean, nargs="?", const=True, default=False, metavar="BOOL", help="add mirror images")
    add("--labels-dest", metavar="ZIP|DIR", help="also label maps: 0 background, 1 head ... 6 ears")
    add("--edges-dest", metavar="ZIP|DIR", help="also edge maps: black lines on white")
    add(
        "--depth-dest", metavar="ZIP|DIR", help="also 16-bit depth: 1e-4 scene units a step along the ray, 0 background"
    )
    add("--workers", type=at_least(0), default=0, metavar="N", help="processes [0: this one]")
    args = parser.parse_args()
    check_numbers({"workers": args.workers}, "")
    return args


def main():
    args = read_options()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from training.data.critters import Critters  # torch comes only now, so that --help is quick
    from training.data.export import write_critters

    critters = Critters(
        resolution=args.resolution, seed=args.seed, size=args.num, poses=args.poses, mirror=args.mirror, cache=False
    )
    places = {"labels": args.labels_dest, "edges": args.edges_dest, "depth": args.depth_dest}
    maps = {kind: place for kind, place in places.items() if place}
    write_critters(critters, args.dest, maps, args.label, args.workers, progress)
    print(f"{len(critters)} critters of {args.resolution} px are in {', '.join([args.dest, *maps.values()])}")


if __name__ == "__main__":
    run(main)
