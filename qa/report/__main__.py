"""The page of a question answering run: report.html in its folder, one file that opens anywhere.

python -m qa.report runs/demo-qa            builds it anew from what the folder holds
"""

from minitransformer.system.errors import command_line
from minitransformer.system.flags import FlagParser
from qa.report import write


@command_line
def main() -> None:
    parser = FlagParser(prog="python -m qa.report", description=__doc__)
    parser.add_argument("run", metavar="RUN", help="a run folder, as runs/demo-qa")
    print(write(parser.parse_args().run))


if __name__ == "__main__":
    main()
