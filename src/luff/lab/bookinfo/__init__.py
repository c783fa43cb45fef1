"""
Our own bookinfo: the real one's call graph, forwarded headers and published timeouts, in one small program.

``python -m luff.lab.bookinfo SERVICE`` plays one service. productpage asks
reviews (3 s, twice) and details (3 s), reviews asks ratings (10 s in version
v2, 2.5 s in v3); none has more than that, so the real one's well-known bug is
here too: productpage gives up on reviews while reviews still waits for
ratings. Source of the figures: samples/bookinfo of istio/istio.
"""
