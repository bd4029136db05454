//! Kernel modules, loaded in the order that they are given in.

use std::fs::File;
use std::io;
use std::path::Path;

use super::BootError;

/// The driver of virtio serial ports: there once its module is loaded.
const PORT_DRIVER: &str = "/sys/bus/virtio/drivers/virtio_console";

/// A module that is loaded later. Open, since its file goes with the initramfs.
#[derive(Debug)]
pub struct Module {
    path: String,
    file: File,
}

/// Loads modules until `has_disks` says yes and there is a driver for the channel's port. What comes after them is not
/// needed to come up, and is left to be loaded beside the first calls.
pub fn load(paths: &[String], has_disks: impl Fn() -> bool) -> Result<Vec<Module>, BootError> {
    let mut later = Vec::new();
    let mut is_enough = false;
    for path in paths {
        let failed = |source| BootError::LoadModule { module: path.clone(), source };
        let module = Module { path: path.clone(), file: File::open(path).map_err(failed)? };
        if is_enough {
            later.push(module);
        } else {
            module.load().map_err(failed)?;
            is_enough = Path::new(PORT_DRIVER).exists() && has_disks();
        }
    }
    Ok(later)
}

/// Those up to and with the one of this name, and the rest. Without it, all are the rest.
pub fn up_to(mut modules: Vec<Module>, name: &str) -> (Vec<Module>, Vec<Module>) {
    let is_it = |module: &Module| Path::new(&module.path).file_stem().is_some_and(|stem| stem == name);
    let count = modules.iter().position(is_it).map_or(0, |at| at + 1);
    let rest = modules.split_off(count);
    (modules, rest)
}

impl Module {
    fn load(&self) -> io::Result<()> {
        match rustix::system::finit_module(&self.file, c"", 0) {
            // The kernel or an earlier module has it.
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Loads it. Where that fails, the guest does without, and the kernel's log says why.
    pub fn load_or_log(&self) {
        if let Err(error) = self.load() {
            drop(std::fs::write("/dev/kmsg", format!("<3>banger-agent: cannot load module {}: {error}\n", self.path)));
        }
    }
}
