"""The worker's application of a test that does not wait for half a minute until chords are looked after."""

from machinery_compat import app

app.conf.machinery_chord_watch_interval = 0.3
