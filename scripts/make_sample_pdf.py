"""Writes the sample PDF, the manual of a cargo bike, from the text below: three pages with a text layer, in the fonts
every reader has. The same text makes the same bytes.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "src/terakoya/samples/documents/mc-240-manual.en.pdf"
TITLE = "MC-240 electric cargo bike: owner's manual"
PAGES = (
    """\
# MC-240 electric cargo bike: owner's manual

Mizuha Cycles, edition 3, March 2026. Read it before the first ride and keep it with the bicycle.

## 1. What is in the box

Bicycle, battery BT-14, charger CH-4, two keys with the same number, tool pouch, this manual. Note the key
number on the last page; without it no key can be cut again.

## 2. Technical data

Motor: MD-60, mid-drive, 250 W, 68 N·m
Battery: BT-14, 36 V, 14.5 Ah, 522 Wh, 2.9 kg
Range: 40 to 75 km, by load, hills and level of assistance
Assistance: fades from 10 km/h and ends at 24 km/h
Weight: 38 kg without the battery
Permitted total weight: 185 kg, rider and load included
Load in the front box: 60 kg at most
Load on the rear carrier: 25 kg at most
Tyres: front 20 x 2.15, rear 26 x 2.15
Tyre pressure: front 3.2 bar, rear 3.6 bar
Water protection: IPX4; rain is no problem, a pressure washer is

The MC-310 has a permitted total weight of 230 kg and a manual of its own.

## 3. Before each ride

Pull both brake levers: they must not touch the grip. Check that the battery clicks into its lock and that the
box cover is closed. Children in the box wear helmets and belts; the box seats two children of up to seven years.
""",
    """\
## 4. Battery and charging

Charge the battery between 0 and 40 °C with the charger CH-4 only. An empty battery is full after 4 hours and
50 minutes; 80 % are reached after 3 hours. For a long life keep it between 20 and 80 %, and at about 50 %
when it rests for more than a month. After 600 full charges about 70 % of the capacity is left.

The display shows the charge in five bars. When the last bar blinks, 8 % is left and the motor gives half of its
power. Below 3 % the motor is off and the lights stay on for at least 2 hours.

## 5. Starting and levels of assistance

Hold the button on the display for two seconds. Choose Eco, Normal or High with + and -. Walk assistance, up to
4 km/h, runs as long as you hold the minus button. The display goes off after 10 minutes without movement.

## 6. Error codes

E01: speed sensor. Check that the magnet on the rear spoke is 3 to 6 mm from the sensor.
E03: motor too hot. Let it cool for 20 minutes; do not pour water over it.
E07: battery does not answer. Take it out, dry the contacts and put it in again.
E12: brake switch stuck. Do not ride; call the workshop.

Any other code: write it down, switch off, and call the workshop on weekdays except Wednesday.
""",
    """\
## 7. Care and service

Every 2 weeks: clean and oil the chain, check the tyre pressure.
Every 500 km: check the brake pads BP-7. Change them when less than 1.0 mm of lining is left.
Every 1,500 km: change the chain. It is worn when the gauge falls in at 0.75 %.
First service: after 150 km or 6 weeks, free of charge. Spokes and bolts settle in this time.
Yearly service: 14,800 yen, wearing parts not included.

Clean the bicycle with a sponge and lukewarm water. Never turn it upside down: the display would break.

## 8. Tightening torques

Stem bolts: 5 N·m
Seat clamp: 6 N·m
Axle nut, rear: 38 N·m
Crank bolt: 50 N·m

## 9. Transport and disposal

Take the battery out before the bicycle goes on a car. The car's carrier must be allowed for 45 kg. Trains do not
take the MC-240. We take old batteries back free of charge; they do not belong in household waste.

## 10. Numbers to note

Frame number (under the bottom bracket): ______________
Key number (on the key): ______________
""",
)
WIDTH, HEIGHT, MARGIN = 595, 842, 64
STYLES = {"# ": ("F2", 17, 30), "## ": ("F2", 12.5, 24), "": ("F1", 10, 15)}
"""Font, size and distance to the line above, by how a line begins."""


def main() -> int:
    TARGET.write_bytes(document([page_content(text, number) for number, text in enumerate(PAGES, start=1)]))
    return 0


def page_content(text: str, number: int) -> bytes:
    """The drawing operators of one page."""
    parts = ["BT"]
    y = float(HEIGHT - MARGIN)
    for font, size, leading, line in lines(text):
        y -= leading
        parts.append(f"/{font} {size} Tf 1 0 0 1 {MARGIN} {y:g} Tm ({escaped(line)}) Tj")
    parts.append(f"/F1 9 Tf 1 0 0 1 {WIDTH // 2 - 3} 40 Tm ({number}) Tj")
    parts.append("ET")
    return "\n".join(parts).encode("cp1252")


def lines(text: str) -> Iterator[tuple[str, float, float, str]]:
    for line in text.splitlines():
        mark = next(mark for mark in STYLES if line.startswith(mark))
        font, size, leading = STYLES[mark]
        yield font, size, leading if line else leading * 0.55, line.removeprefix(mark)


def escaped(line: str) -> str:
    return line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")


def document(contents: list[bytes]) -> bytes:
    """Objects: 1 catalogue, 2 page tree, 3 and 4 fonts, 5 information, then a page and its content by turns."""
    kids = " ".join(f"{6 + 2 * index} 0 R" for index in range(len(contents)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R /Lang (en) >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(contents)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica-Bold /Encoding /WinAnsiEncoding >>",
        f"<< /Title ({escaped(TITLE)}) /Creator (scripts/make_sample_pdf.py) >>".encode("cp1252"),
    ]
    for index, content in enumerate(contents):
        fonts = "/Font << /F1 3 0 R /F2 4 0 R >>"
        box = f"[0 0 {WIDTH} {HEIGHT}]"
        page = f"<< /Type /Page /Parent 2 0 R /MediaBox {box} /Resources << {fonts} >> /Contents {7 + 2 * index} 0 R >>"
        packed = zlib.compress(content, 9)
        stream = b"<< /Length %d /Filter /FlateDecode >>\nstream\n%b\nendstream" % (len(packed), packed)
        objects += [page.encode(), stream]
    return joined(objects)


def joined(objects: list[bytes]) -> bytes:
    file = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    places = []
    for number, content in enumerate(objects, start=1):
        places.append(len(file))
        file += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    table = len(file)
    file += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    file += b"".join(b"%010d 00000 n \n" % place for place in places)
    file += b"trailer\n<< /Size %d /Root 1 0 R /Info 5 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, table)
    return bytes(file)


if __name__ == "__main__":
    sys.exit(main())
