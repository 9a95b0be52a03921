#!/usr/bin/env bash
# The main jobs: programs of docs/user/examples on real input.
. "$(dirname "$0")/common.sh"
step "the book's examples" "$VENV/bin/python" docs/user/examples/book_examples.py
step "code search over the standard library" "$VENV/bin/python" docs/user/examples/code_search.py --queries "socket timeout" "json decoder"
