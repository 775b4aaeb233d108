#!/bin/sh
# ImageInvoker: the deployment menu. A Linux automation image calls this file as /startup/menu.sh.
# To change something for this image alone, add it at the end of the last line:
# -t 0 waits for ever, -t 30 for 30 seconds.
# [settings]
# What is started at boot often has no terminal of its own, and the menu needs one.
if ! { [ -t 0 ] && [ -t 2 ]; } && (: </dev/console >/dev/console) 2>/dev/null; then
    exec </dev/console >/dev/console 2>&1
fi
imageinvoker client "$@"
