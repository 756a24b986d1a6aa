//! Harmless text that people really type: names, searches, reviews, addresses; often odd, never an attack.

use fastrand::Rng;

const ADJECTIVES: [&str; 24] = [
    "red",
    "blue",
    "warm",
    "light",
    "vintage",
    "wireless",
    "waterproof",
    "small",
    "large",
    "cheap",
    "organic",
    "wooden",
    "foldable",
    "quiet",
    "children's",
    "women's",
    "men's",
    "second-hand",
    "gluten-free",
    "black & white",
    "no.1",
    "½-inch",
    "crème",
    "grün",
];
const THINGS: [&str; 30] = [
    "shoes",
    "jacket",
    "coffee grinder",
    "bike lock",
    "headphones",
    "novel",
    "cook book",
    "garden hose",
    "puzzle",
    "tent",
    "T-shirt",
    "drop-leaf table",
    "union jack mug",
    "table saw",
    "script notebook",
    "select-o-matic radio",
    "C++ primer",
    "alert bell",
    "or-molu clock",
    "café press",
    "rain coat (long)",
    "USB-C cable 2m",
    "jeans W32/L34",
    "lamp [LED]",
    "ski's",
    "Ångström atlas",
    "jalapeño seeds",
    "10\" tablet",
    "A4 paper 80g/m²",
    "piñata",
];
const OPINIONS: [&str; 20] = [
    "works as described",
    "I'd buy it again",
    "arrived late, but the seller's reply was quick",
    "not worth the price; sorry",
    "my kids love it!",
    "5/5 would recommend",
    "fits (almost) perfectly",
    "the colour isn't what the photo shows",
    "quality is so-so...",
    "10% cheaper elsewhere",
    "great for camping & hiking",
    "broke after 2 weeks :(",
    "it's O.K. - nothing more",
    "exactly what we needed",
    "très joli, merci",
    "sehr gute Qualität",
    "¡muy bueno!",
    "the manual says \"do not open\", so I didn't",
    "from door to table in <3 days",
    "do select the bigger size",
];
const FIRST_NAMES: [&str; 20] = [
    "Anna",
    "Ben",
    "Chloë",
    "D'Arcy",
    "Émile",
    "Fatima",
    "Grace",
    "Hugo",
    "Inés",
    "Jürgen",
    "Kira",
    "Liam",
    "Małgorzata",
    "Noor",
    "Ólafur",
    "Pia",
    "Quentin",
    "Rosa",
    "Søren",
    "Tomáš",
];
const LAST_NAMES: [&str; 20] = [
    "O'Brien",
    "Smith",
    "García",
    "Müller",
    "de la Cruz",
    "Nguyễn",
    "Kowalski",
    "D'Angelo",
    "van der Berg",
    "Jensen",
    "Okafor",
    "Silva-Santos",
    "Yılmaz",
    "Novák",
    "McDonald",
    "Haddad",
    "Tanaka",
    "Lindström",
    "St. John",
    "O’Neill",
];
const STREETS: [&str; 12] = [
    "Main St.",
    "Rue de l'Église",
    "Königsallee",
    "Baker Street",
    "Via Roma",
    "St. Mary's Rd",
    "Oak Ave",
    "Calle Mayor",
    "Dr.-Külz-Ring",
    "Elm Court #4",
    "Plac Zamkowy",
    "Flat 2/B, Hill Rd",
];

fn pick(rng: &mut Rng, from: &[&'static str]) -> &'static str {
    from.get(rng.usize(..from.len().max(1))).copied().unwrap_or("")
}

/// What someone types into a search box.
pub fn search(rng: &mut Rng) -> String {
    match rng.u8(..10) {
        0..4 => pick(rng, &THINGS).to_owned(),
        4..8 => format!("{} {}", pick(rng, &ADJECTIVES), pick(rng, &THINGS)),
        8 => format!("{} under {}€", pick(rng, &THINGS), rng.u32(5..200)),
        _ => format!("\"{}\" size {}", pick(rng, &THINGS), rng.u32(34..48)),
    }
}

/// A review or a note of one to four sentences.
pub fn opinion(rng: &mut Rng) -> String {
    (0..rng.usize(1..5)).map(|_| pick(rng, &OPINIONS)).collect::<Vec<_>>().join(". ")
}

/// A person's full name.
pub fn name(rng: &mut Rng) -> String {
    format!("{} {}", pick(rng, &FIRST_NAMES), pick(rng, &LAST_NAMES))
}

/// A postal address on one line.
pub fn address(rng: &mut Rng) -> String {
    format!("{} {}", rng.u32(1..250), pick(rng, &STREETS))
}

/// A telephone number in one of the ways people write it.
pub fn phone(rng: &mut Rng) -> String {
    let (a, b) = (rng.u32(100..999), rng.u32(1000..9999));
    match rng.u8(..3) {
        0 => format!("+44 20 {a} {b}"),
        1 => format!("(0{a}) {b}"),
        _ => format!("0{a}-{b}"),
    }
}

/// Harmless running text of at least `bytes` bytes.
pub fn running(rng: &mut Rng, bytes: usize) -> String {
    let mut out = String::new();
    while out.len() < bytes {
        if !out.is_empty() {
            out.push_str(". ");
        }
        out.push_str(&opinion(rng));
    }
    out
}
