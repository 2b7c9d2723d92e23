"""`distilvl export`."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option, echo

from distilvl.cli.shared import (
    DATA,
    AsJson,
    MaxPixels,
    SkipBad,
    app,
    clean_stdout,
    print_json,
    print_left_out,
    print_table,
)

COLUMNS = ("", "size, MB", "RSUM", "drop", "ms, image", "ms, text")
WITHOUT_PAIRS = ("", "size, MB", "as PyTorch, %", "ms, image", "ms, text")


@app.command(
    epilog="Example: distilvl export runs/mine --out exported --precision fp32 --precision int8 --data photos/"
)
def export(
    source: Annotated[Path, Argument(metavar="RUN_OR_STUDENT", help="Run folder or student folder.")],
    out: Annotated[Path, Option(help="New folder; an earlier export there is replaced.")],
    data: Annotated[
        str | None, Option(help=f"{DATA} Photographs without captions will do. The run's own by default.")
    ] = None,
    split: Annotated[str, Option(help="Split on which RSUM is measured before and after.")] = "val",
    precision: Annotated[
        list[str] | None, Option(help="fp32, fp16 or int8; may be given again. fp32 and int8 by default.")
    ] = None,
    max_drop: Annotated[float, Option(help="RSUM, of 600, that a dtype may lose; else nothing is written.")] = 1.0,
    keep: Annotated[
        list[str] | None, Option(help="Layer, or module with layers, that stays in fp32; may be given again.")
    ] = None,
    features: Annotated[
        str | None,
        Option(help="Store with the teacher's features of the split, for its RSUM; the run's own by default."),
    ] = None,
    teacher: Annotated[
        str | None, Option(help="The teacher itself, to time it, and to score it where no store has its features.")
    ] = None,
    browser: Annotated[
        Path | None,
        Option(
            metavar="PHOTOS",
            help="Also write OUT/browser: a static folder that searches these photographs: a folder, or an index.",
        ),
    ] = None,
    npm_files: Annotated[
        Path | None, Option(help="Folder with the npm archives for --browser; fetched by default.")
    ] = None,
    skip_bad: SkipBad = False,
    _max_pixels: MaxPixels = None,
    as_json: AsJson = False,
) -> None:
    """Write a student as ONNX that runs without PyTorch; score it before and after, and refuse what loses too much."""
    from distilvl.browser import check_photos, web_files, write_bundle
    from distilvl.export import Settings, export_student
    from distilvl.students.folder import student_folder
    from distilvl.teachers.base import folder_hash

    settings = Settings(split=split, precisions=precision or Settings.precisions, max_drop=max_drop, keep=keep or (),
                        features=features, teacher=teacher, skip_bad=skip_bad)  # fmt: skip
    with clean_stdout():
        if browser is not None:
            check_photos(browser, folder_hash(student_folder(source)))  # both before what takes minutes
            web_files(npm_files)
        found = export_student(source, out, data, settings)
        bundle = None if browser is None else write_bundle(out, browser, out / "browser", npm_files)
    if found.note is not None:
        echo(f"note: {found.note}", err=True)
    if as_json:
        print_json(found.as_dict() | ({} if bundle is None else {"browser": bundle.as_dict()}))
        return
    title = f"{found.student} on {found.data}: {found.images} images, {found.texts} captions"
    sizes = [None if row.size is None else row.size / 1e6 for row in found.rows]
    paired = all(row.overlap is None for row in found.rows)
    rows = [(row.name, (size, *((row.rsum, row.drop) if paired else (row.overlap,)), row.image_ms, row.text_ms))
            for row, size in zip(found.rows, sizes, strict=True)]  # fmt: skip
    console = print_table(title, COLUMNS if paired else WITHOUT_PAIRS, rows)
    console.print(f"{found.threads} thread(s), one item at a time; written: {found.folder}", highlight=False)
    print_left_out(found.left_out)
    print_left_out(found.run_left_out, "its run ")
    if bundle is not None:
        served = f"{bundle.pictures} pictures to search in the browser, {bundle.size / 1e6:.1f} MB. Try it: "
        command = f"python -m http.server --bind 127.0.0.1 --directory {bundle.folder}"
        console.print(served + command, highlight=False, soft_wrap=True)
        print_left_out(bundle.left_out)
