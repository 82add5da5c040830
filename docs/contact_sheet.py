"""Draw docs/emblems.png: emblems as the teacher and as the students see them.

Run from the repository: python docs/contact_sheet.py
"""

from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw

from pipeline.config.params import load_params
from pipeline.datasets.emblems import render_emblems
from pipeline.views.evaluation import evaluation_view

SIZES_PX = (96, 64, 48, 40)
FAMILIES = 5
MEMBERS = 2
MARGIN_PX = 6
HEADER_PX = 22


def main() -> None:
    source = load_params().datasets["emblems"].source
    settings = source.model_dump(exclude={"kind"}) | {"images_per_class": 1}
    records = list(render_emblems(**settings))
    cell_px = SIZES_PX[0] + MARGIN_PX
    block_px = len(SIZES_PX) * cell_px + 2 * MARGIN_PX
    sheet = Image.new("RGB", (MEMBERS * block_px, HEADER_PX + FAMILIES * cell_px), "white")
    draw = ImageDraw.Draw(sheet)
    for member in range(MEMBERS):
        for column, size_px in enumerate(SIZES_PX):
            left = member * block_px + column * cell_px + MARGIN_PX
            draw.text((left, 5), f"{size_px} px", fill="black")
            for family in range(FAMILIES):
                record = records[family * source.members + member]
                view = evaluation_view(Image.open(BytesIO(record.encoded)), size_px)
                image = Image.fromarray(view.permute(1, 2, 0).numpy())
                side = (SIZES_PX[0], SIZES_PX[0])
                image = image.resize(side, Image.Resampling.NEAREST)
                sheet.paste(image, (left, HEADER_PX + family * cell_px))
    sheet.save(Path(__file__).with_name("emblems.png"), optimize=True)


if __name__ == "__main__":
    main()
