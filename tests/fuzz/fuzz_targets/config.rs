//! Text as the configuration file, and as arguments to redact: total, and what is redacted stays redacted.
#![no_main]

use std::path::Path;

use agent_monitor::config::Layer;
use agent_monitor::redact::Redactor;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(layer) = Layer::parse(Path::new("fuzz.toml"), text) {
        let _config = layer.finish();
    }
    let redactor = Redactor::new([1; 32], &[]).unwrap();
    let args: Vec<String> = text.split('\0').map(str::to_owned).collect();
    if let Some(clean) = redactor.args(&args) {
        assert_eq!(clean.len(), args.len());
    }
});
