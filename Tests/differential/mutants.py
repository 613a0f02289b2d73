# SPDX-License-Identifier: Apache-2.0
"""Seeded mutations of the page walker, each of which the differential against unicorn must catch.

    mutants.py [--seed S] [--dry-run] [NAME …]

Each mutation is one exact replacement in a copy of the model under .build/mutants; the product has no switch for it.
A mutation whose text is no longer in the source fails here, so the list cannot rot. The unmutated copy must pass.
"""
import argparse
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = ROOT / ".build" / "mutants"
WALK, FORMAT = "PageTable/PageWalk.swift", "PageTable/PageTableFormat.swift"

MUTATIONS = {
    "present-bit-ignored": (WALK, "guard bits & PageTableEntry.present != 0 else", "guard bits != 0 else"),
    "user-bit-of-upper-levels-ignored": (
        WALK, "user = common & PageTableEntry.user != 0", "user = bits & PageTableEntry.user != 0"),
    "user-bit-ignored": (WALK, "if !user || access.contains(.write)", "if access.contains(.write)"),
    "write-bit-of-upper-levels-ignored": (
        WALK, "let writable = common & PageTableEntry.writable != 0", "let writable = bits & PageTableEntry.writable != 0"),
    "write-bit-ignored": (WALK, "access.contains(.write) && !writable || ", ""),
    "no-execute-of-upper-levels-ignored": (
        WALK, "executable = some & PageTableEntry.noExecute == 0", "executable = bits & PageTableEntry.noExecute == 0"),
    "no-execute-ignored": (WALK, " || access.contains(.execute) && !executable", ""),
    "reserved-high-bits-ignored": (WALK, "& ~(1 << UInt64(format.physicalAddressBits) - 1)", "& 0"),
    "reserved-high-bits-off-by-one": (
        WALK, "~(1 << UInt64(format.physicalAddressBits) - 1)", "~(1 << (UInt64(format.physicalAddressBits) + 1) - 1)"),
    "page-size-at-root-taken-as-leaf": (
        WALK, "if level > format.highestLeafLevel { return reserved | PageTableEntry.pageSize }", ""),
    "misaligned-large-page-accepted": (WALK, "return reserved | below & ~UInt64(0x1fff)", "return reserved"),
    "pat-of-large-page-reserved": (
        WALK, "return reserved | below & ~UInt64(0x1fff)", "return reserved | below & ~UInt64(0xfff)"),
    "pat-of-large-page-in-the-address": (WALK, "frame: frame & ~low", "frame: frame"),
    "accessed-not-set": (WALK, "var wanted = PageTableEntry.accessed", "var wanted: UInt64 = 0"),
    "accessed-only-in-the-leaf": (WALK, "if old & wanted != wanted {", "if old & wanted != wanted && level == leafLevel {"),
    "accessed-of-upper-levels-taken-for-set": (
        WALK, "common & PageTableEntry.accessed != 0 &&", "bits & PageTableEntry.accessed != 0 &&"),
    "dirty-on-read": (WALK, "if dirty && level == leafLevel {", "if level == leafLevel {"),
    "dirty-in-every-level": (WALK, "if dirty && level == leafLevel {", "if dirty {"),
    "dirty-never": (WALK, "{ wanted |= PageTableEntry.dirty }", "{ }"),
    "dirty-taken-for-set-when-accessed-is": (WALK, "(!dirty || bits & PageTableEntry.dirty != 0)", "true"),
    "accessed-set-when-denied": (
        WALK, "        if !user ||",
        "        if access.contains(.updateBits) { update(&memory, from: start, page, leafLevel: level, dirty: false) }\n"
        "        if !user ||"),
    "not-canonical-accepted": (WALK, "guard format.isCanonical(address) else", "guard true else"),
    "index-of-eight-bits": (FORMAT, "(9 &* UInt64(level)) & 511", "(9 &* UInt64(level)) & 255"),
    "canonical-one-bit-short": (
        FORMAT, "let shift = 64 - UInt64(virtualAddressBits)", "let shift = 63 - UInt64(virtualAddressBits)"),
}

PACKAGE = """// swift-tools-version: 6.1
import PackageDescription
let package = Package(
  name: "mutants",
  dependencies: [.package(url: "https://github.com/apple/swift-collections", exact: "1.6.0")],
  targets: [
    .target(name: "IOMMUModel", dependencies: [
      .product(name: "DequeModule", package: "swift-collections"),
      .product(name: "HeapModule", package: "swift-collections"),
    ]),
    .executableTarget(name: "WalkerProbe", dependencies: ["IOMMUModel"]),
  ],
  swiftLanguageModes: [.v6]
)
"""


def write_if_changed(path, text):
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def prepare():
    for source, name in ((ROOT / "Sources/IOMMUModel", "IOMMUModel"), (ROOT / "Tests/WalkerProbe", "WalkerProbe")):
        target = WORK / "Sources" / name
        wanted = {path.relative_to(source) for path in source.rglob("*.swift")}
        for stale in [path for path in target.rglob("*.swift") if path.relative_to(target) not in wanted]:
            stale.unlink()
        for path in wanted:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            write_if_changed(target / path, (source / path).read_text())
    write_if_changed(WORK / "Package.swift", PACKAGE)
    if (ROOT / "Package.resolved").exists() and not (WORK / "Package.resolved").exists():
        shutil.copy(ROOT / "Package.resolved", WORK / "Package.resolved")


def differential_fails(seed):
    """Builds the copy and runs the differential: True when it reports disagreements, and what it printed."""
    build = subprocess.run(["swift", "build", "--package-path", WORK, "--product", "WalkerProbe"],
                           capture_output=True, text=True)
    if build.returncode != 0:
        sys.exit("a mutant does not build:\n" + build.stdout[-3000:] + build.stderr[-3000:])
    run = subprocess.run(
        [sys.executable, ROOT / "Tests/differential/page_walk.py", WORK / ".build/debug/WalkerProbe", "--tables", "400",
         "--requests", "40000", "--seed", str(seed), "--stop-after", "1"], capture_output=True, text=True)
    if run.returncode not in (0, 1):
        sys.exit("the differential did not run:\n" + run.stdout + run.stderr)
    if run.returncode == 1 and " disagreements" not in run.stdout and "ended early" not in run.stderr:
        sys.exit("the differential broke:\n" + run.stdout + run.stderr)
    return run.returncode == 1, run.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=2014)
    parser.add_argument("--dry-run", action="store_true", help="only check that every mutation still has its text")
    parser.add_argument("names", nargs="*", help="mutations to try; default: all")
    options = parser.parse_args()
    for name, (file, old, _) in MUTATIONS.items():
        count = (ROOT / "Sources/IOMMUModel" / file).read_text().count(old)
        if count != 1:
            sys.exit("mutation %s: its text is in %s %d times, not once" % (name, file, count))
    if options.dry_run:
        print("%d mutations apply" % len(MUTATIONS))
        return 0
    WORK.mkdir(parents=True, exist_ok=True)
    prepare()
    failed, output = differential_fails(options.seed)
    if failed:
        print(output)
        sys.exit("the unmutated walker disagrees with the reference")
    caught, missed = [], []
    for name in options.names or MUTATIONS:
        file, old, new = MUTATIONS[name]
        path = WORK / "Sources" / "IOMMUModel" / file
        text = path.read_text()
        path.write_text(text.replace(old, new))
        failed, output = differential_fails(options.seed)
        path.write_text(text)
        (caught if failed else missed).append(name)
        first = next((line for line in output.splitlines() if line.startswith("table")), "")
        print("%-36s %s  %s" % (name, "caught" if failed else "MISSED", first), flush=True)
    print("%d mutants caught, %d missed (seed %d)" % (len(caught), len(missed), options.seed))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
