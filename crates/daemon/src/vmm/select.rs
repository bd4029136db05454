//! temporary
use std::sync::Arc;
/// x
pub struct Choice {
    /// x
    pub vmm: Arc<dyn super::Vmm>,
    /// x
    pub kvm: bool,
    /// x
    pub reason: String,
}
/// x
pub fn select() -> Choice {
    Choice {
        vmm: Arc::new(super::qemu::Qemu::new(banger_linux::process::Program::Qemu)),
        kvm: false,
        reason: String::new(),
    }
}
