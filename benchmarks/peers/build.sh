#!/bin/sh
# Builds the peers that are no Python, and a Python for the one that needs a newer one, into benchmarks/peers/build.
#
# Each by itself: what has no toolchain here, or does not build, is said, and its measurements are skipped by name. It
# takes some minutes the first time, most of them Rust's; versions are pinned by go.sum, Cargo.lock and pom.xml.
set -u
cd "$(dirname "$0")" || exit 1
mkdir -p build

attempt() { # name, what it needs, a function
    if ! command -v "$2" >/dev/null; then
        echo "$1: not built, there is no $2 here" >&2
    elif ("$3"); then
        echo "$1: built"
    else
        echo "$1: not built, see above" >&2
    fi
}

go_programs() {
    cd go && go build -trimpath -o ../build/rivals .
}

rust_program() {
    cd rust && cargo build --quiet --locked --release --target-dir ../build/cargo &&
        cp -f ../build/cargo/release/chitchat ../build/chitchat
}

java_program() {
    rm -rf build/maven  # jars of another version beside these would be found as well
    (cd java && mvn --quiet --batch-mode package) && cat >build/pekko <<'END' && chmod +x build/pekko
#!/bin/sh
here=$(dirname "$0")/maven
exec java -cp "$here/classes:$here/jars/*" Rival "$@"
END
}

# pyenv has its Pythons where no PATH leads.
new_python() {
    for python in python3 python3.15 python3.14 python3.13 "$HOME"/.pyenv/versions/3.1[3-9]*/bin/python; do
        "$python" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 13))' 2>/dev/null && echo "$python" && return
    done
    echo "no Python >= 3.13 here" >&2
    return 1
}

python_program() {
    python=$(new_python) && "$python" -m venv build/python &&
        build/python/bin/python -m pip install --quiet --disable-pip-version-check aiocluster==1.1.0 &&
        cat >build/aiocluster <<'END' && chmod +x build/aiocluster
#!/bin/sh
here=$(dirname "$0")
exec "$here/python/bin/python" -P "$here/../aionode.py" "$@"
END
}

attempt "memberlist and serf" go go_programs
attempt chitchat cargo rust_program
attempt "Apache Pekko" mvn java_program
attempt aiocluster true python_program
