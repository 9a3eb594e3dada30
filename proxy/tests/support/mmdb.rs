//! A MaxMind database of IPv4 networks and countries, as small as one can be (MaxMind DB file format specification, version 2.0).

/// Nodes of 24-bit records.
pub fn database(networks: &[([u8; 4], u32, &str)]) -> Vec<u8> {
    const NOWHERE: usize = usize::MAX;
    let mut data = Vec::new();
    let mut nodes: Vec<[(usize, bool); 2]> = vec![[(NOWHERE, false); 2]];
    for (address, length, code) in networks {
        let (bits, offset) = (u32::from_be_bytes(*address), data.len());
        map(&mut data, 1);
        text(&mut data, "country");
        map(&mut data, 1);
        text(&mut data, "iso_code");
        text(&mut data, code);
        let mut node = 0;
        for depth in 0..*length {
            let side = (bits >> (31 - depth) & 1) as usize;
            if depth + 1 == *length {
                nodes[node][side] = (offset, true);
            } else {
                if nodes[node][side].0 == NOWHERE {
                    nodes.push([(NOWHERE, false); 2]);
                    nodes[node][side] = (nodes.len() - 1, false);
                }
                node = nodes[node][side].0;
            }
        }
    }
    let count = nodes.len();
    let record = |(to, is_data): (usize, bool)| match (to, is_data) {
        (NOWHERE, _) => count,
        (offset, true) => count + 16 + offset,
        (node, false) => node,
    };
    let mut file: Vec<u8> =
        nodes.iter().flatten().flat_map(|to| (record(*to) as u32).to_be_bytes()[1..].to_vec()).collect();
    file.extend_from_slice(&[0; 16]);
    file.extend_from_slice(&data);
    file.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
    map(&mut file, 9);
    for (name, bytes, kind) in [
        ("node_count", (count as u32).to_be_bytes().to_vec(), 6),
        ("record_size", vec![0, 24], 5),
        ("ip_version", vec![0, 4], 5),
        ("binary_format_major_version", vec![0, 2], 5),
        ("binary_format_minor_version", vec![0, 0], 5),
    ] {
        text(&mut file, name);
        file.push(kind << 5 | bytes.len() as u8);
        file.extend_from_slice(&bytes);
    }
    text(&mut file, "database_type");
    text(&mut file, "Test-Country");
    text(&mut file, "languages");
    // An array, which is of an extended type, with nothing in it.
    file.extend_from_slice(&[0, 4]);
    text(&mut file, "build_epoch");
    // A 64-bit number, likewise.
    file.extend_from_slice(&[1, 2, 1]);
    text(&mut file, "description");
    map(&mut file, 0);
    file
}

fn map(out: &mut Vec<u8>, pairs: u8) {
    out.push(7 << 5 | pairs);
}

fn text(out: &mut Vec<u8>, text: &str) {
    assert!(text.len() < 29);
    out.push(2 << 5 | text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}
