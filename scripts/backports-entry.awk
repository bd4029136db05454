# Reads apt's source files, one-line (*.list) and deb822 (*.sources), and prints the first entry that serves Debian's own
# suite as a deb822 stanza for that suite's backports. The key, the mirror and the other options are the entry's.
#
#   awk -v codename=bookworm [-v aliases="stable"] [-v archives="URI URI"] -f backports-entry.awk FILE...
#
# `aliases` are other words under which apt's sources name the suite; `archives` are the URIs that apt knows to be Debian's
# main archive: without them every entry of the suite with `main` may be taken. Exit status 1 where there is no such entry.

BEGIN {
    count = split(codename " " aliases, list, " ")
    for (i = 1; i <= count; i++) named[list[i]] = 1
    types["deb"] = 1
    components["main"] = 1
    listed = split(archives, list, " ")
    for (i = 1; i <= listed; i++) known[plain(list[i])] = 1
}

FNR == 1 { finish() }

FILENAME ~ /\.sources$/ { deb822($0); next }
{ one_line($0) }

END {
    finish()
    if (!found) exit 1
}

function plain(uri) {
    sub(/\/+$/, "", uri)
    return uri
}

# One line of a stanza. A field's further lines begin with a blank; they are kept as they are, for keys that stand inline.
function deb822(line,    name, value) {
    if (line ~ /^[ \t]*$/) { finish(); return }
    if (line ~ /^#/) return
    if (line ~ /^[ \t]/) { field[last] = field[last] "\n" line; return }
    name = line; sub(/:.*/, "", name)
    value = line; sub(/^[^:]*:[ \t]*/, "", value)
    last = tolower(name)
    field[last] = value
}

# The same from `deb [option=value ...] URI suite component...`; its options have the names of the fields but for case.
function one_line(line,    words, count, options, i, pair, name) {
    sub(/#.*/, "", line)
    if (line !~ /^[ \t]*deb[ \t]/) return
    options = ""
    if (match(line, /\[[^]]*\]/)) {
        options = substr(line, RSTART + 1, RLENGTH - 2)
        line = substr(line, 1, RSTART - 1) " " substr(line, RSTART + RLENGTH)
    }
    count = split(line, words, " ")
    if (count < 4) return
    field["types"] = words[1]
    field["uris"] = words[2]
    field["suites"] = words[3]
    field["components"] = words[4]
    for (i = 5; i <= count; i++) field["components"] = field["components"] " " words[i]
    count = split(options, words, " ")
    for (i = 1; i <= count; i++) {
        split(words[i], pair, "=")
        name = tolower(pair[1])
        if (name == "arch") name = "architectures"
        gsub(/,/, " ", pair[2])
        field[name] = pair[2]
    }
    finish()
}

# An entry is complete: print it if it is the one, forget it in any case.
function finish() {
    if (!found && suits()) {
        found = 1
        print "Types: deb"
        print "URIs: " field["uris"]
        print "Suites: " codename "-backports"
        print "Components: main"
        if ("architectures" in field) print "Architectures: " field["architectures"]
        if ("signed-by" in field) print "Signed-By: " field["signed-by"]
        if ("trusted" in field) print "Trusted: " field["trusted"]
        if ("check-valid-until" in field) print "Check-Valid-Until: " field["check-valid-until"]
    }
    split("", field)
    last = ""
}

function suits() {
    if (tolower(field["enabled"]) ~ /^(no|false|off|without|disable|0)$/) return 0
    if (!any(field["types"], types) || !any(field["suites"], named) || !any(field["components"], components)) return 0
    return listed == 0 || any(field["uris"], known)
}

# Whether one of the words is a key of `wanted`.
function any(words, wanted,    list, count, i) {
    count = split(words, list, " ")
    for (i = 1; i <= count; i++) if (plain(list[i]) in wanted) return 1
    return 0
}
