"""The colours of all pictures."""

# Distinct with every common kind of colour blindness.
# Source: M. Okabe and K. Ito, "Color Universal Design", 2008.
BLACK, GREY = "#222222", "#767676"
ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)  # of curves, in their order
CARD = "#F7F6F2"  # the background of every picture
