//! Metrics of a step that are read off the machine: model FLOPs utilization, peak memory, the stall of a snapshot.

use std::collections::BTreeMap;
use std::time::Duration;

use pixfleet_cluster::spec::Precision;
use pixfleet_shim::cuda;
use tch::Device;

/// Dense matrix products a second by the vendor's data sheets, TFLOP/s in bf16 (without sparsity) and in fp32; by what the
/// device's name contains, the longer one first.
const PEAKS: [(&str, f64, f64); 11] = [
    ("GB200", 2500.0, 80.0),
    ("B200", 2250.0, 75.0),
    ("H100 PCIe", 756.0, 51.0),
    ("H100 NVL", 835.0, 60.0),
    ("H100", 989.4, 66.9),
    ("H200", 989.4, 66.9),
    ("A100", 312.0, 19.5),
    ("A10", 125.0, 31.2),
    ("L40S", 362.0, 91.6),
    ("L4", 121.0, 30.3),
    ("RTX 4090", 165.2, 82.6),
];

/// See the module.
#[derive(Debug)]
pub(crate) struct Gauges {
    device: Device,
    /// FLOP/s of the device; `None` where no data sheet is known, as for CPUs.
    peak: Option<f64>,
    /// Of the snapshot before the present step.
    stall: Option<Duration>,
}

impl Gauges {
    pub(crate) fn new(device: Device, precision: Precision) -> Self {
        let name = cuda::name(device).ok();
        Self { device, peak: name.and_then(|name| peak_of(&name, precision)), stall: None }
    }

    /// A snapshot kept the device from its next step for so long.
    pub(crate) fn stalled(&mut self, stall: Duration) {
        self.stall = Some(stall);
    }

    /// Adds `mfu` (of this rank's device, over the whole step with all its waits), `peak_memory_bytes` (of the device since
    /// the last step; of the process on a CPU, since its start) and `snapshot_s` of a step that came after a snapshot.
    pub(crate) fn add(&mut self, metrics: &mut BTreeMap<String, f64>, seconds: f64) {
        if let (Some(peak), Some(flops)) = (self.peak, metrics.get("flops")) {
            metrics.insert("mfu".into(), flops / seconds / peak);
        }
        if let Some(bytes) = peak_memory(self.device) {
            metrics.insert("peak_memory_bytes".into(), bytes as f64);
        }
        if let Some(stall) = self.stall.take() {
            metrics.insert("snapshot_s".into(), stall.as_secs_f64());
        }
    }
}

fn peak_of(name: &str, precision: Precision) -> Option<f64> {
    let (_, bf16, fp32) = PEAKS.iter().find(|(part, _, _)| name.contains(part))?;
    let teras = match precision {
        Precision::Bf16 => bf16,
        Precision::Fp32 => fp32,
    };
    Some(teras * 1e12)
}

/// The most memory in use since the last call (CPU: since the start), bytes; `None` where it is not told.
fn peak_memory(device: Device) -> Option<u64> {
    if device.is_cuda() {
        return cuda::take_peak_memory(device).ok();
    }
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_known_by_its_own_name() {
        let teras = |name, precision| peak_of(name, precision).map(|peak| peak / 1e12);
        assert_eq!(teras("NVIDIA H100 80GB HBM3", Precision::Bf16), Some(989.4));
        assert_eq!(teras("NVIDIA H100 PCIe", Precision::Bf16), Some(756.0));
        assert_eq!(teras("NVIDIA L40S", Precision::Fp32), Some(91.6));
        assert_eq!(teras("NVIDIA GB200", Precision::Bf16), Some(2500.0));
        assert_eq!(teras("Somebody's accelerator", Precision::Bf16), None);
        for (i, (longer, _, _)) in PEAKS.iter().enumerate() {
            assert!(PEAKS[..i].iter().all(|(before, _, _)| !longer.contains(before)), "{longer} is never reached");
        }
    }

    #[test]
    fn a_step_on_a_cpu_tells_its_memory_and_no_utilization() {
        let mut gauges = Gauges::new(Device::Cpu, Precision::Fp32);
        gauges.stalled(Duration::from_millis(250));
        let mut metrics: BTreeMap<String, f64> = [("flops".into(), 1e12)].into();
        gauges.add(&mut metrics, 1.0);
        assert!(metrics["peak_memory_bytes"] > 1e6, "{metrics:?}");
        assert_eq!((metrics["snapshot_s"], metrics.get("mfu")), (0.25, None));
        gauges.add(&mut metrics, 1.0);
        assert!(gauges.stall.is_none());
    }
}
