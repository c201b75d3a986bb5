"""The parts of the page that are the same for all runs, and how text gets into them."""

from html import escape

from resnet_cli.config.messages import escape_control_characters

HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
script-src 'unsafe-inline';{connect} base-uri 'none'; form-action 'none'">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{css}</style>
</head>
<body>
<header>
<div><h1>{title}</h1><p class="counts">{counts}</p></div>
<button id="theme" type="button" aria-label="Colour theme: as the system">◐ <span>System</span></button>
</header>
<noscript><p class="note">Without JavaScript the tables cannot be sorted or filtered and no curves are drawn.</p>
</noscript>
{live}<main>
"""

FOOT = """\
</main>
<footer><p>Mean ± sample standard deviation over the n finished runs, for each seed the newest; accuracies in percent.
Best val: result of the epoch chosen on the validation split; the best mean is bold. Training time: sum over the
epochs. Bands: one standard deviation over the runs that reached the epoch. Written by resnet-report on {today}.</p>
</footer>
<script type="application/json" id="curves">{data}</script>
<script>
{script}</script>
{live_script}</body>
</html>
"""

CONTROLS = """\
<div class="controls">
<label class="search">Filter <input type="search" placeholder="words, or lr&gt;=0.05" autocomplete="off" \
spellcheck="false" aria-controls="table-{i}"></label>
<span class="shown" role="status" aria-live="polite"></span>
<details class="columns"><summary>Columns</summary><div class="choices"></div></details>
<span class="gap"></span>
<span class="curve-buttons" role="group" aria-label="Curves drawn">Curves
<button type="button" data-draw="best">best {first}</button><button type="button" data-draw="all">all</button>\
<button type="button" data-draw="none">none</button></span>
<label><input type="checkbox" class="single"> single runs</label>
<label><input type="checkbox" class="late"> last half</label>
<label><input type="checkbox" class="log"> log loss</label>
</div>
"""


def escape_html(text: str) -> str:
    """Return text as HTML that shows it."""
    return escape(escape_control_characters(text))
