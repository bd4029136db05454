//! x
#![allow(missing_docs)]
pub mod apt;
pub mod builds;
pub mod kernel;
pub mod manifest;
pub mod modules;
pub mod record;
// temporary
pub struct BuildRequest {
    pub name: String,
    pub size: u64,
    pub seed_size: u64,
    pub scratch: std::path::PathBuf,
    pub dir: std::path::PathBuf,
    pub log: std::path::PathBuf,
}
pub enum Progress {
    Stage(&'static str),
    Line(String),
}
pub struct Built {
    pub system: String,
    pub kernel: String,
    pub packages: u32,
    pub manifest_sha256: String,
    pub size: u64,
    pub work_seed: bool,
}
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("x")]
    X,
}
pub async fn build(_r: &BuildRequest, _p: &(dyn Fn(Progress) + Send + Sync)) -> Result<Built, ImageError> {
    Err(ImageError::X)
}
