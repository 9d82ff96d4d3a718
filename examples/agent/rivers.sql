-- What rivers.sqlite is made of: sqlite3 rivers.sqlite < rivers.sql
CREATE TABLE rivers (
    name TEXT PRIMARY KEY,
    length_km INTEGER NOT NULL,
    mouth TEXT NOT NULL,
    countries INTEGER NOT NULL -- that the river itself flows through or along
);
INSERT INTO rivers VALUES
    ('Danube', 2850, 'Black Sea', 10),
    ('Douro', 897, 'Atlantic Ocean', 2),
    ('Ebro', 930, 'Mediterranean Sea', 1),
    ('Elbe', 1094, 'North Sea', 2),
    ('Loire', 1006, 'Atlantic Ocean', 1),
    ('Po', 652, 'Adriatic Sea', 1),
    ('Rhine', 1233, 'North Sea', 6),
    ('Rhône', 813, 'Mediterranean Sea', 2),
    ('Seine', 777, 'English Channel', 1),
    ('Thames', 346, 'North Sea', 1),
    ('Vistula', 1047, 'Baltic Sea', 1),
    ('Volga', 3531, 'Caspian Sea', 1);
