"""What single lessons run on: code that uses the instruments of `looplab.lab`, and so is no shop.

Like the shop, it is the course's own code: an x-ray shows its tasks.
"""
