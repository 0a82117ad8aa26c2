#!/usr/bin/env node
// Not built, so that it is there when npm links it: also in a clone where nothing has been built yet.
import '../dist/operate/cli/main.js';
