//! temporary
use super::*;
use async_trait::async_trait;
use std::path::PathBuf;
/// x
pub struct Fake {
    _agent: PathBuf,
}
impl Fake {
    /// x
    pub fn new(agent: PathBuf) -> Fake {
        Fake { _agent: agent }
    }
}
#[async_trait]
impl Vmm for Fake {
    fn capabilities(&self) -> Capabilities {
        Capabilities { name: "fake", adoptable: true, power_button: true }
    }
    async fn start(&self, _machine: &Machine) -> Result<Box<dyn Instance>, VmmError> {
        Err(VmmError::Gone)
    }
    async fn adopt(&self, _machine: &Machine) -> Result<Box<dyn Instance>, VmmError> {
        Err(VmmError::Gone)
    }
}
