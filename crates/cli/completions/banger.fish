# Completion of banger's command line in fish. `banger completion fish` prints it; `make install` puts it where fish looks.
# What is offered, banger itself says; it starts nothing, and says nothing where no daemon runs.
function __banger_complete
    set -l typed (commandline -opc) (commandline -ct)
    for line in ($typed[1] __complete $typed 2>/dev/null)
        switch $line
            case ':files'
                __fish_complete_path (commandline -ct)
            case ':directories'
                __fish_complete_directories (commandline -ct) ''
            case '*'
                printf '%s\n' $line
        end
    end
end
complete -c banger -f -a '(__banger_complete)'
