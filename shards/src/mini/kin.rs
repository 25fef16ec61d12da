//! Which concepts may be called by each other's names: a poodle is a dog, a package may pass for a gift. What is said
//! of the one might be true of the other, so neither stands for the other in a text that must be false.

/// Names that one might use for each other, or that have one name in common (`bird`, `building`). Generous: whatever
/// stands here in doubt only costs a hard negative.
const GROUPS: &[&str] = &[
    "monkey, gorilla, orangutan",
    "dog, poodle, wolf, fox, raccoon",
    "cat, lion, tiger, leopard",
    "horse, donkey, unicorn, zebra, moose, deer",
    "bison, cow, ox, water buffalo",
    "pig, boar",
    "ram, ewe, goat",
    "camel, llama",
    "elephant, mammoth",
    "mouse, rat, hamster, chipmunk, beaver, badger, otter, skunk, hedgehog, rabbit",
    "bear, panda, koala, sloth",
    "bird, turkey, chicken, rooster, hatching chick, baby chick, penguin, dove, eagle, duck, swan, owl, dodo, flamingo, peacock, parrot, black bird, goose, phoenix, feather, wing, bat",
    "crocodile, lizard, dragon, sauropod, T-Rex, snake, frog, turtle, worm",
    "whale, dolphin, seal, fish, blowfish, shark, carp streamer, sushi",
    "octopus, squid, jellyfish",
    "crab, lobster, shrimp, scorpion",
    "oyster, spiral shell, snail",
    "bug, ant, honeybee, beetle, lady beetle, cricket, cockroach, butterfly, mosquito, fly, spider, scorpion, worm, microbe, snail",
    "bouquet, cherry blossom, white flower, lotus, rosette, rose, wilted flower, hibiscus, sunflower, blossom, tulip, hyacinth, potted plant",
    "seedling, potted plant, herb, shamrock, four leaf clover, leafy green, sheaf of rice, cactus, pine decoration, green salad, broccoli, evergreen tree, deciduous tree, palm tree, leafless tree, Christmas tree, coral",
    "tangerine, lemon, lime, peach, mango, red apple, tomato",
    "strawberry, blueberries, cherries, grapes, olive",
    "carrot, potato, onion, garlic, ginger root, root vegetable, roasted sweet potato",
    "hot pepper, bell pepper, tomato",
    "cucumber, pickle, eggplant, avocado",
    "beans, peanuts, pea pod, chestnut, coconut",
    "bread, croissant, baguette, flatbread, pretzel, bagel, sandwich, hamburger, hot dog, taco, burrito, tamale, falafel, waffle, pancakes, pizza",
    "meat on bone, poultry leg, cut of meat, bacon",
    "pan of food, pot of food, fondue, bowl with spoon, green salad, canned food, bento box, curry rice, steaming bowl, spaghetti, oden, cooked rice, rice ball, sushi, dango, dumpling, french fries",
    "soft ice cream, shaved ice, custard, doughnut, cookie, cupcake, shortcake, birthday cake, pie, chocolate bar, wrapped sweet, lollipop, pancakes, waffle",
    "baby bottle, glass of milk, hot beverage, teapot, teacup without handle, sake, bottle with popping cork, wine glass, cocktail glass, tropical drink, beer mug, two clinking beer mugs, two clinking glasses, tumbler glass, cup with straw, bubble tea, beverage box, jar, amphora, honey pot, lotion bottle, trophy, funeral urn",
    "chopsticks, fork and knife, spoon, kitchen knife, dagger, crossed swords, razor",
    "mountain, volcano, rock, brick, headstone, moai",
    "campsite with a tent, tent, circus tent, hut",
    "stadium, classical building, hut, house, house with garden, office building, post office, hospital, bank, hotel, convenience store, school, department store, factory, castle, church, mosque, hindu temple, synagogue, shinto shrine, kaaba, lighthouse, fountain, station",
    "locomotive, railway car, train, metro train, station, tram, monorail, tram car, bus, trolleybus",
    "bus, trolleybus, minibus, ambulance, fire engine, police car, taxi, automobile, sport utility vehicle, pickup truck, delivery truck, articulated lorry, tractor, racing car, auto rickshaw, railway car, tram car",
    "motorcycle, motor scooter, bicycle, kick scooter, manual wheelchair, motorized wheelchair, wheel",
    "sailboat, canoe, speedboat, passenger ship, ferry, motor boat, ship",
    "airplane, small airplane, helicopter, rocket, flying saucer, satellite, satellite dish, parachute, ringed planet",
    "hourglass, watch, alarm clock, stopwatch, timer clock, mantelpiece clock, compass",
    "sun, star, comet, meteor, fire, fireworks, sparkler, firecracker, bomb",
    "snowflake, snowman, cloud, rainbow, tornado, lightning bolt, droplet",
    "candle, light bulb, flashlight, red paper lantern, diya lamp, police car light, couch and lamp, lighthouse, jack-o-lantern",
    "wrapped gift, package, takeout box, beverage box, toolbox, treasure chest, postbox, ballot box with ballot, wastebasket, basket, bucket",
    "soccer ball, baseball, softball, basketball, volleyball, american football, rugby football, bowling ball, billiard ball, crystal ball, mirror ball, confetti ball, yarn, balloon",
    "tennis racket, badminton racket, table tennis bat, field hockey stick, ice hockey stick, lacrosse stick",
    "flip-flop, man's shoe, running shoe, hiking boot, flat shoe, high-heeled shoe, woman's sandal, ballet shoes, woman's boot, roller skate, ice skate, skateboard, skis, sled, socks",
    "martial arts uniform, running shirt, t-shirt, lab coat, safety vest, coat, dress, kimono, briefs, shorts, bikini, woman's clothes, jeans, scarf, necktie, one-piece swimsuit",
    "purse, handbag, clutch bag, shopping bags, backpack, luggage, briefcase, money bag, shopping cart, basket",
    "crown, woman's hat, top hat, graduation cap, billed cap, military helmet, rescue worker's helmet",
    "glasses, sunglasses, goggles, diving mask",
    "ring, gem stone, prayer beads, nazar amulet, crown",
    "postal horn, saxophone, trumpet, trombone, flute, megaphone",
    "guitar, violin, banjo, harp",
    "mobile phone, telephone, telephone receiver, fax machine, radio",
    "laptop, desktop computer, television, keyboard, printer, fax machine",
    "computer disk, floppy disk, optical disk, DVD, flying disc",
    "movie camera, video camera, camera, film projector, film frames, videocassette",
    "notebook, closed book, ledger, spiral notepad, bookmark tabs, bookmark, memo, clipboard, scroll, newspaper, roll of paper, receipt, credit card, identification card, label, placard, ticket, admission tickets, envelope, red envelope, framed picture, x-ray image, musical score",
    "pencil, black nib, fountain pen, pen, paintbrush, crayon, memo",
    "pushpin, paperclip, safety pin, sewing needle",
    "thread, yarn, knot, chains, link, ribbon, reminder ribbon, hook",
    "hammer, axe, pickaxe, wrench, screwdriver, carpentry saw, shovel, clamp, nut and bolt, gear",
    "test tube, alembic, microscope, telescope, syringe, thermometer, pill",
    "bed, chair, airline seat, couch and lamp, toilet, bathtub, shower",
    "mirror, window, door, framed picture",
    "broom, paintbrush, toothbrush, plunger, razor, crutch, white cane",
    "coffin, headstone, funeral urn, moai",
    "joystick, video game, slot machine, control knobs, level slider",
    "teddy bear, nesting dolls, piñata, chess pawn",
    "bell, bellhop bell, wind chime",
    "coin, money bag, money with wings, trophy, medal",
];

/// Words that tell no concept.
const EMPTY: &[&str] = &[
    "with", "and", "the", "without", "face", "two", "woman", "man", "black", "white", "red", "green", "blue", "orange",
    "brown", "old", "open", "closed", "small", "flat", "long",
];

/// What relates a concept to others: its words, and the groups that they stand in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kin {
    words: Vec<String>,
    groups: Vec<usize>,
}

impl Kin {
    /// The kin of a concept that goes by these names.
    pub(crate) fn of<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Self {
        let mut words: Vec<String> = names.clone().flat_map(words).collect();
        words.sort_unstable();
        words.dedup();
        let belongs = |group: &&str| {
            group.split(", ").any(|member| names.clone().any(|name| name == member || headed(name, member)))
        };
        let groups = GROUPS.iter().enumerate().filter(|(_, group)| belongs(group)).map(|(i, _)| i).collect();
        Self { words, groups }
    }

    /// Whether one might be called by the other's name.
    pub(crate) fn related(&self, other: &Self) -> bool {
        // `boat` stands in `sailboat`; shorter words stand in too many by chance.
        let within = |a: &String, b: &String| a.len() >= 4 && b.contains(a.as_str());
        let close = |a: &String| other.words.iter().any(|b| a == b || within(a, b) || within(b, a));
        self.groups.iter().any(|g| other.groups.contains(g)) || self.words.iter().any(close)
    }
}

/// Whether `member` is a single word that stands in `name`: `polar bear`, `cat face`.
fn headed(name: &str, member: &str) -> bool {
    !member.contains(' ') && name.split(' ').any(|word| word == member)
}

/// The name itself and those of its words that tell something, without the plural's s.
fn words(name: &str) -> impl Iterator<Item = String> {
    let lower = name.to_lowercase();
    let words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric()).collect();
    let telling = words.into_iter().filter(|w| w.len() > 2 && !EMPTY.contains(w));
    let plain = |w: &str| w.strip_suffix('s').unwrap_or(w).to_string();
    telling.chain([lower.as_str()]).map(plain).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_share_a_name_is_kin_and_nothing_else() {
        let kin = |a: &'static str, b: &'static str| {
            let of = |name: &'static str| Kin::of(std::iter::once(name));
            assert_eq!(of(a).related(&of(b)), of(b).related(&of(a)));
            of(a).related(&of(b))
        };
        for (a, b) in [
            ("yo-yo", "yo-yo"),
            ("dog", "poodle"),
            ("guide dog", "dog face"),
            ("bird", "penguin"),
            ("sailboat", "motor boat"),
            ("house", "office building"),
            ("wrapped gift", "package"),
            ("shoe", "ballet shoes"),
            ("polar bear", "panda"),
            ("egg", "nest with eggs"),
        ] {
            assert!(kin(a, b), "{a}, {b}");
        }
        for (a, b) in [("dog", "cat"), ("monkey face", "cow face"), ("ant", "elephant"), ("red apple", "red envelope")]
        {
            assert!(!kin(a, b), "{a}, {b}");
        }
    }
}
