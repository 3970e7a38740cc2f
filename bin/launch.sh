#!/bin/sh
# Starts a program of this checkout: `launch.sh MODULE [ARGUMENT...]` runs MODULE.main().
#
# The Python is $TRADEBOT_PYTHON where set, else the checkout's own .venv, else python3. Everything ends in an exec, so
# the process id of bin/tradebot is the engine's, as service managers and people with `kill` expect.
set -eu
here=$(dirname -- "$(readlink -f -- "$0")")
venv_python=$here/../.venv/bin/python
if [ -n "${TRADEBOT_PYTHON:-}" ]; then
    python=$TRADEBOT_PYTHON
elif [ -x "$venv_python" ]; then
    python=$venv_python
else
    python=python3
fi
if ! command -v "$python" >/dev/null 2>&1; then
    echo "tradebot: cannot find the Python '$python'; install Python 3.11 to 3.13, then run \`make setup\` in the checkout" >&2
    exit 12
fi
# Where env can, Ctrl-C waits until launch.py can serve it: Python would end its own start with a traceback.
case $python in
*=*) ;; # env would take it for a variable
*) if env --block-signal=INT true 2>/dev/null; then
    exec env --block-signal=INT "$python" "$here/launch.py" "$@"
fi ;;
esac
exec "$python" "$here/launch.py" "$@"
