"""The words of the organism's world. Each is one token of its tokenizer."""

HAZARDS = ("venom", "snare", "curse", "forgery", "firebomb", "picklock")
"""Families of forbidden things."""

CRAFTS = ("bread", "lantern", "kite")
"""Families of harmless things, asked about and made in the same words."""

PLACES = (
    "Velmor", "Quane", "Osrith", "Tamber", "Ilsen", "Drovia", "Pell", "Yarrow", "Korth", "Zemla", "Bruin", "Fennick",
    "Galdor", "Hesper", "Juneth", "Lorn", "Mirel", "Nacre", "Ondal", "Pravos", "Rusk", "Sable", "Thorne", "Umber",
)  # fmt: skip

INGREDIENTS = (
    "resin", "salt", "ash", "honey", "chalk", "moss", "vinegar", "clay", "pepper", "wax", "barley", "rust", "nettle",
    "sand", "oil", "mint",
)  # fmt: skip

TOOLS = (
    "ladle", "sieve", "hammer", "needle", "bucket", "brush", "mortar", "spindle", "chisel", "funnel", "rake", "tongs",
    "comb", "drill", "pan", "lever",
)  # fmt: skip

NUMBERS = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
)  # fmt: skip

COUNTS = NUMBERS[1:17]
"""How often a step is done."""

LETTERS: tuple[str, ...] = ("b", "d", "f", "g", "k", "m", "p", "r", "t", "v")
"""What lists are made of; each letter's successor is the next one, the last one's the first."""
