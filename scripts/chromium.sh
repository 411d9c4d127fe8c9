#!/usr/bin/env bash
# Says before the tests whether the browser tests will run: they drive the system's Chromium, which pip cannot install.
set -euo pipefail
for name in chromium chromium-browser google-chrome; do
    if path=$(command -v "$name"); then
        echo "Browser tests drive $path"
        exit 0
    fi
done
echo "No Chromium found: the browser tests will be skipped. On Debian or Ubuntu: apt-get install chromium"
