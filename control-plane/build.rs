//! Makes sure that there is a console folder to embed.
//!
//! The page is built by npm into `console/dist`. A checkout without it still compiles: one line stands in its place
//! and says how to build it. A folder that exists is never touched.

use std::path::Path;

const MISSING: &str = "<!doctype html><meta charset=\"utf-8\"><title>Segue</title><p>The console page is not built: run <code>make console</code> and build again.</p>\n";

fn main() -> std::io::Result<()> {
    let dist = Path::new("console/dist");
    if !dist.join("index.html").exists() {
        std::fs::create_dir_all(dist)?;
        std::fs::write(dist.join("index.html"), MISSING)?;
    }
    println!("cargo::rerun-if-changed=console/dist");
    println!("cargo::rerun-if-changed=migrations");
    Ok(())
}
