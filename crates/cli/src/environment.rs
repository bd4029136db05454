//! What the process was given: variables and its own path. `main.rs` reads them once; everything else is handed this.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use banger_api::client::Client;

/// Where the daemon keeps its socket unless it is told otherwise, and the socket's name.
const RUNTIME_DIR: &str = "/run/banger";
const SOCKET: &str = "bangerd.sock";

/// The variables that name a daemon's files and directories.
const PLACES: [&str; 3] = ["BANGER_STATE_DIR", "BANGER_RUNTIME_DIR", "BANGER_CONFIG"];

/// The process's surroundings.
#[derive(Debug, Clone)]
pub struct Environment {
    vars: HashMap<OsString, OsString>,
    program: PathBuf,
}

impl Environment {
    /// From the variables and the path of the running program. The places of the daemon become absolute: the daemon that this
    /// process starts has another working directory.
    pub fn new(vars: impl Iterator<Item = (OsString, OsString)>, program: PathBuf) -> Environment {
        let mut vars: HashMap<_, _> = vars.collect();
        for name in PLACES {
            if let Some(place) = vars.get_mut(OsStr::new(name))
                && let Ok(absolute) = std::path::absolute(&*place)
            {
                *place = absolute.into();
            }
        }
        Environment { vars, program }
    }

    /// A variable's value, if it is set and not empty.
    pub fn var(&self, name: &str) -> Option<&OsStr> {
        self.vars.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// Every variable that is set.
    pub fn vars(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.vars.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }

    /// Those of the named variables that are set; for programs that are started.
    pub fn pick(&self, names: &[&str]) -> Vec<(OsString, OsString)> {
        let set = |name: &&str| self.var(name).map(|value| (OsString::from(name), value.to_owned()));
        names.iter().filter_map(set).collect()
    }

    /// Where the daemon keeps its records.
    pub fn state_dir(&self) -> PathBuf {
        self.var("BANGER_STATE_DIR").map_or_else(|| "/var/lib/banger".into(), PathBuf::from)
    }

    /// Where the daemon keeps its socket.
    pub fn runtime_dir(&self) -> PathBuf {
        self.var("BANGER_RUNTIME_DIR").map_or_else(|| RUNTIME_DIR.into(), PathBuf::from)
    }

    /// The socket of the daemon that this process would start.
    pub fn own_socket(&self) -> PathBuf {
        self.runtime_dir().join(SOCKET)
    }

    /// The socket that is used if none is named.
    pub fn usual_socket() -> PathBuf {
        Path::new(RUNTIME_DIR).join(SOCKET)
    }

    /// Whether this is the socket that is found without being named.
    pub fn is_usual(socket: &Path) -> bool {
        socket == Environment::usual_socket()
    }

    /// The daemon that is to be asked: the one on `host`, if that was typed.
    pub fn client(&self, host: Option<PathBuf>) -> Client {
        let host = host.or_else(|| self.var("BANGER_HOST").map(PathBuf::from));
        // As docker and others write it.
        let host = host.map(|host| host.strip_prefix("unix:").map(|path| Path::new("/").join(path)).unwrap_or(host));
        Client::new(host.unwrap_or_else(|| self.own_socket()))
    }

    /// The running program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The user's home directory.
    pub fn home(&self) -> Option<PathBuf> {
        self.var("HOME").map(PathBuf::from).filter(|home| home.is_absolute())
    }

    /// Where the user's programs keep what they make, by the XDG Base Directory Specification.
    pub fn data_dir(&self) -> Option<PathBuf> {
        self.base_directory("XDG_DATA_HOME", ".local/share")
    }

    /// Where the user's programs are configured, likewise.
    pub fn config_dir(&self) -> Option<PathBuf> {
        self.base_directory("XDG_CONFIG_HOME", ".config")
    }

    fn base_directory(&self, variable: &str, below_home: &str) -> Option<PathBuf> {
        // The specification has relative ones passed over.
        let named = self.var(variable).map(PathBuf::from).filter(|path| path.is_absolute());
        named.or_else(|| Some(self.home()?.join(below_home)))
    }

    /// A program of this name in the user's `PATH`.
    pub fn find_program(&self, name: &str) -> Option<PathBuf> {
        let runs = |path: &PathBuf| rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file();
        std::env::split_paths(self.var("PATH")?)
            .filter(|directory| directory.is_absolute())
            .map(|directory| directory.join(name))
            .find(runs)
    }

    /// A program that is installed in the same directory as this one.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.program.parent().unwrap_or(Path::new("/")).join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemons_places_are_absolute_and_empty_ones_are_not_set() {
        let vars = [("BANGER_STATE_DIR", "s"), ("BANGER_RUNTIME_DIR", "/r"), ("BANGER_CONFIG", ""), ("HOME", "h")];
        let environment =
            Environment::new(vars.map(|(name, value)| (name.into(), value.into())).into_iter(), "/b".into());
        let here = std::path::absolute("s").unwrap();
        assert!(here.is_absolute());
        assert_eq!((environment.state_dir(), environment.runtime_dir()), (here.clone(), "/r".into()));
        let picked = environment.pick(&["BANGER_STATE_DIR", "BANGER_CONFIG", "HOME"]);
        assert_eq!(picked, [("BANGER_STATE_DIR".into(), here.into()), ("HOME".into(), "h".into())]);
    }
}
