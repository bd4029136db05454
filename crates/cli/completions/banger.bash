# Completion of banger's command line in bash. `banger completion bash` prints it; `make install` puts it where
# bash-completion looks. What is offered, banger itself says; it starts nothing, and says nothing where no daemon runs.
_banger() {
    # For readline a word ends at ':' and '=', too: what no blank separates is put together.
    local rest=${COMP_LINE:0:COMP_POINT} trimmed word i
    local -a words=()
    for ((i = 0; i <= COMP_CWORD; i++)); do
        trimmed=${rest#"${rest%%[![:blank:]]*}"}
        word=${COMP_WORDS[i]}
        ((i < COMP_CWORD)) || word=$trimmed
        if ((i > 0)) && [[ $rest == "$trimmed" ]]; then
            words[-1]+=$word
        else
            words+=("$word")
        fi
        rest=${trimmed#"$word"}
    done

    local current=${words[-1]} files='' line
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
            :files) files=-f ;;
            :directories) files=-d ;;
            *) COMPREPLY+=("${line%%$'\t'*}") ;;
        esac
    done < <("${words[0]}" __complete "${words[@]}" 2>/dev/null)

    if [[ -n $files && ${#COMPREPLY[@]} -eq 0 ]]; then
        # Only files: readline quotes and marks them best.
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen "$files" -- "$current")
        return
    elif [[ -n $files ]]; then
        local path slash
        while IFS= read -r path; do
            slash=
            [[ ! -d $path ]] || slash=/
            COMPREPLY+=("$(printf %q "$path")$slash")
        done < <(compgen "$files" -- "$current")
    fi
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[:=/] ]]; then
        compopt -o nospace
    fi
    # Readline replaces only what is behind the last ':' or '=' that ends a word for it.
    local breaks="${COMP_WORDBREAKS//[!:=]/}"
    if [[ -n $breaks ]]; then
        local head=${current%"${current##*[$breaks]}"}
        COMPREPLY=("${COMPREPLY[@]#"$head"}")
    fi
}
complete -F _banger banger
