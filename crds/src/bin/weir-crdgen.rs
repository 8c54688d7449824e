//! Writes the CustomResourceDefinition of `LoadBalancerPool` beside the types it is generated from.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(weir_crds::DEFINITION_FILE);
    std::fs::write(path, weir_crds::definition_yaml()?)?;
    Ok(())
}
